/* What a Wayland server makes of its clients' requests. */
#include "check.h"

#include <fcntl.h>
#include <sys/mman.h>

static const struct primeshare_format OFFERED[] = {{XRGB8888, LINEAR}, {ARGB8888, LINEAR}};

static int create(struct primeshare_params *params, int32_t width, int32_t height, uint32_t format,
		struct primeshare_buffer **buffer) {
	return primeshare_params_create_buffer(params, width, height, format, 0, OFFERED, 2, buffer);
}

static void a_buffer_is_made_of_planes(void) {
	struct primeshare_device *device = device_of("vgem", 0);
	struct primeshare_buffer *drawn = dumb(device, 64, 48), *buffer;
	struct primeshare_buffer_info info = {.size = sizeof(info)};
	struct primeshare_buffer_id id, other;
	OK(primeshare_buffer_get_info(drawn, &info));
	struct primeshare_params *params;
	OK(primeshare_params_create(&params));
	OK(primeshare_params_add(params, 0, info.planes[0].fd, info.planes[0].offset, info.planes[0].stride, LINEAR));
	OK(create(params, 64, 48, XRGB8888, &buffer));
	OK(primeshare_buffer_get_id(drawn, &id));
	OK(primeshare_buffer_get_id(buffer, &other));
	CHECK(id.inode == other.inode && id.device == other.device);
	/* One params object makes one buffer. */
	FAILS(create(params, 64, 48, XRGB8888, &buffer), EINVAL);
	CHECK(primeshare_last_error_linux_dmabuf() == 0);
	primeshare_params_destroy(params);
	primeshare_buffer_unref(buffer);
	primeshare_buffer_unref(drawn);
	primeshare_device_unref(device);
}

static void each_breach_of_the_protocol_has_its_code(void) {
	struct primeshare_device *device = device_of("vgem", 0);
	struct primeshare_buffer *drawn = dumb(device, 64, 48), *buffer = NULL;
	struct primeshare_buffer_info info = {.size = sizeof(info)};
	OK(primeshare_buffer_get_info(drawn, &info));
	int fd = info.planes[0].fd, null = open("/dev/null", O_RDWR | O_CLOEXEC);
	uint32_t stride = info.planes[0].stride;
	struct {
		uint32_t plane;
		int fd;
		uint32_t stride;
		uint64_t modifier;
		int32_t width;
		uint32_t format;
		int code;
	} cases[] = {
		{1, fd, stride, LINEAR, 64, XRGB8888, 3},
		{0, fd, stride, 7, 64, XRGB8888, 4},
		{0, fd, stride, LINEAR, 64, NV12, 4},
		{0, fd, stride, LINEAR, 0, XRGB8888, 5},
		{0, fd, stride, LINEAR, -1, XRGB8888, 5},
		{0, fd, 4, LINEAR, 64, XRGB8888, 6},
		{0, null, stride, LINEAR, 64, XRGB8888, -1},
	};
	for (size_t n = 0; n < sizeof(cases) / sizeof(*cases); n++) {
		struct primeshare_params *params;
		OK(primeshare_params_create(&params));
		OK(primeshare_params_add(params, cases[n].plane, cases[n].fd, 0, cases[n].stride, cases[n].modifier));
		CHECK(create(params, cases[n].width, 48, cases[n].format, &buffer) < 0);
		CHECK(primeshare_last_error_linux_dmabuf() == cases[n].code);
		primeshare_params_destroy(params);
	}
	struct primeshare_params *params;
	OK(primeshare_params_create(&params));
	FAILS(primeshare_params_add(params, 4, fd, 0, stride, LINEAR), EINVAL);
	CHECK(primeshare_last_error_linux_dmabuf() == 1);
	OK(primeshare_params_add(params, 0, fd, 0, stride, LINEAR));
	FAILS(primeshare_params_add(params, 0, fd, 0, stride, LINEAR), EINVAL);
	CHECK(primeshare_last_error_linux_dmabuf() == 2);
	FAILS(primeshare_params_add(params, 1, -1, 0, stride, LINEAR), EBADF);
	FAILS(primeshare_params_add(NULL, 0, fd, 0, stride, LINEAR), EINVAL);
	FAILS(primeshare_params_create(NULL), EINVAL);
	primeshare_params_destroy(params);
	primeshare_params_destroy(NULL);
	CHECK(buffer == NULL);
	close(null);
	primeshare_buffer_unref(drawn);
	primeshare_device_unref(device);
}

static void the_format_table_cannot_be_changed(void) {
	const struct primeshare_tranche tranche = {1, PRIMESHARE_TRANCHE_SAMPLING, OFFERED, 2};
	struct primeshare_feedback *feedback;
	const void *table;
	size_t size;
	OK(primeshare_feedback_create(6, 0, &tranche, 1, &feedback));
	OK(primeshare_feedback_get_table(feedback, &table, &size));
	int fd = primeshare_feedback_create_table_fd(feedback);
	CHECK(fd >= 0);
	void *map = mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0);
	CHECK(map != MAP_FAILED && memcmp(map, table, size) == 0);
	CHECK(pwrite(fd, "x", 1, 0) == -1 && errno == EPERM);
	CHECK(ftruncate(fd, 0) == -1 && errno == EPERM);
	munmap(map, size);
	close(fd);
	primeshare_feedback_destroy(feedback);
	FAILS(primeshare_feedback_create_table_fd(NULL), EINVAL);
}

static void a_clients_memory_is_a_buffer(void) {
	int memory = memfd_create("client", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	CHECK(memory >= 0 && ftruncate(memory, 65536) == 0);
	struct primeshare_buffer *buffer = NULL;
	OK(primeshare_buffer_create_from_memfd(memory, 64, 48, XRGB8888, 4096, 256, &buffer));
	struct primeshare_device *device = device_of("vkms", 0);
	struct primeshare_import *import;
	OK(primeshare_device_import(device, buffer, &import));
	primeshare_import_unref(import);
	primeshare_device_unref(device);
	primeshare_buffer_unref(buffer);
	buffer = NULL;
	FAILS(primeshare_buffer_create_from_memfd(memory, 64, 48, XRGB8888, 65000, 256, &buffer), EINVAL);
	FAILS(primeshare_buffer_create_from_memfd(-1, 64, 48, XRGB8888, 0, 256, &buffer), EBADF);
	int unsealable = memfd_create("old", MFD_CLOEXEC);
	CHECK(unsealable >= 0 && ftruncate(unsealable, 65536) == 0);
	FAILS(primeshare_buffer_create_from_memfd(unsealable, 64, 48, XRGB8888, 0, 256, &buffer), EPERM);
	CHECK(buffer == NULL);
	close(unsealable);
	close(memory);
}

int main(void) {
	RUN(a_buffer_is_made_of_planes);
	RUN(each_breach_of_the_protocol_has_its_code);
	RUN(the_format_table_cannot_be_changed);
	RUN(a_clients_memory_is_a_buffer);
}
