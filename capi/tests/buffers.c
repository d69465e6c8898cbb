/* Buffers, allocators and mappings. */
#include "check.h"

#include <fcntl.h>
#include <sys/socket.h>

static void allocate(struct primeshare_allocator *allocator, const char *name) {
	struct primeshare_request request = {
		.size = sizeof(request), .width = 100, .height = 50, .format = XRGB8888, .usage = PRIMESHARE_USAGE_MAP};
	struct primeshare_buffer *buffer;
	struct primeshare_buffer_info info = {.size = sizeof(info)};
	CHECK(strstr(primeshare_allocator_name(allocator), name) != NULL);
	OK(primeshare_allocator_allocate(allocator, &request, &buffer));
	OK(primeshare_buffer_get_info(buffer, &info));
	CHECK(info.width == 100 && info.height == 50 && info.format == XRGB8888 && info.modifier == LINEAR);
	CHECK(info.plane_count == 1 && info.planes[0].stride >= 400 && info.planes[0].fd >= 0 && info.planes[1].fd == -1);
	CHECK((fcntl(info.planes[0].fd, F_GETFD) & FD_CLOEXEC) != 0);
	pixels(buffer, 5, true);
	CHECK(pixels(buffer, 5, false) == 0 && pixels(buffer, 6, false) > 0);
	primeshare_buffer_unref(primeshare_buffer_ref(buffer));
	primeshare_buffer_unref(buffer);
	FAILS(primeshare_allocator_allocate(allocator, NULL, &buffer), EINVAL);
	CHECK(strstr(primeshare_last_error_message(), "request is") != NULL);
	request.width = 0;
	CHECK(primeshare_allocator_allocate(allocator, &request, &buffer) < 0);
	request.width = 100;
	request.usage = 1u << 20;
	FAILS(primeshare_allocator_allocate(allocator, &request, &buffer), EINVAL);
	primeshare_allocator_unref(primeshare_allocator_ref(allocator));
	primeshare_allocator_unref(allocator);
}

static void every_allocator_makes_memory_that_keeps_a_picture(void) {
	struct primeshare_device *vgem = device_of("vgem", 0);
	struct primeshare_allocator *allocator;
	OK(primeshare_allocator_create_dumb(vgem, &allocator));
	allocate(allocator, "dumb");
	OK(primeshare_allocator_create_udmabuf(&allocator));
	allocate(allocator, "udmabuf");
	OK(primeshare_allocator_create_dma_heap(NULL, &allocator));
	allocate(allocator, "heap");
	OK(primeshare_allocator_create_dma_heap("/dev/dma_heap/system", &allocator));
	allocate(allocator, "heap");
	FAILS(primeshare_allocator_create_dma_heap("/dev/dma_heap/none", &allocator), ENOENT);
	primeshare_device_unref(vgem);
}

static void gbm_allocates_with_the_modifier_that_was_asked_for(void) {
	struct primeshare_device *vkms = device_of("vkms", 0);
	struct primeshare_allocator *allocator;
	struct primeshare_buffer *buffer;
	struct primeshare_buffer_info info = {.size = sizeof(info)};
	const uint64_t modifiers[] = {LINEAR, INVALID};
	struct primeshare_request request = {.size = sizeof(request), .width = 64, .height = 64, .format = XRGB8888,
		.usage = PRIMESHARE_USAGE_SCANOUT, .modifiers = modifiers, .modifier_count = 2};
	OK(primeshare_allocator_create_gbm(vkms, &allocator));
	OK(primeshare_allocator_allocate(allocator, &request, &buffer));
	OK(primeshare_buffer_get_info(buffer, &info));
	CHECK(info.modifier == LINEAR || info.modifier == INVALID);
	primeshare_buffer_unref(buffer);
	primeshare_allocator_unref(allocator);
	primeshare_device_unref(vkms);
}

static void a_buffer_from_outside_is_checked(void) {
	struct primeshare_device *vgem = device_of("vgem", 0);
	struct primeshare_buffer *original = dumb(vgem, 64, 64), *buffer = NULL;
	struct primeshare_buffer_info good = {.size = sizeof(good)}, bad;
	struct primeshare_buffer_id id, other_id;
	OK(primeshare_buffer_get_info(original, &good));
	OK(primeshare_buffer_create(&good, &buffer));
	OK(primeshare_buffer_get_id(original, &id));
	OK(primeshare_buffer_get_id(buffer, &other_id));
	CHECK(memcmp(&id, &other_id, sizeof(id)) == 0);
	primeshare_buffer_unref(buffer);
	buffer = NULL;
#define REFUSED(change, answer) \
	do { \
		bad = good; \
		change; \
		CHECK(primeshare_buffer_create(&bad, &buffer) < 0 && buffer == NULL); \
		CHECK(primeshare_last_error_kind() == PRIMESHARE_ERROR_INVALID); \
		CHECK(primeshare_last_error_linux_dmabuf() == (answer)); \
	} while (0)
	/* Errors of zwp_linux_buffer_params_v1: 3 incomplete, 4 invalid_format, 5 invalid_dimensions, 6 out_of_bounds. */
	REFUSED(bad.plane_count = 0, 3);
	REFUSED(bad.width = 0, 5);
	REFUSED(bad.height = 4096, 6);
	REFUSED(bad.planes[0].offset = 0xffffff00u, 6);
	REFUSED(bad.planes[0].stride = 0xfffffffcu, 6);
	bad = good;
	bad.plane_count = 5;
	FAILS(primeshare_buffer_create(&bad, &buffer), EINVAL);
	bad = good;
	bad.planes[0].fd = -1;
	FAILS(primeshare_buffer_create(&bad, &buffer), EBADF);
	bad = good;
	bad.flags = 1u << 9;
	CHECK(primeshare_buffer_create(&bad, &buffer) < 0);
	bad = good;
	bad.planes[0].fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	CHECK(primeshare_buffer_create(&bad, &buffer) < 0);
	close(bad.planes[0].fd);
	primeshare_buffer_unref(original);
	primeshare_device_unref(vgem);
}

static void a_buffer_goes_to_another_process_and_is_the_same(void) {
	struct primeshare_device *vgem = device_of("vgem", 0);
	struct primeshare_buffer *buffer = dumb(vgem, 64, 64), *received = NULL;
	struct primeshare_buffer_id id, received_id;
	int ends[2];
	CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) == 0);
	pixels(buffer, 7, true);
	OK(primeshare_buffer_send(buffer, ends[0]));
	OK(primeshare_buffer_receive_wait(ends[1], &received));
	OK(primeshare_buffer_get_id(buffer, &id));
	OK(primeshare_buffer_get_id(received, &received_id));
	CHECK(memcmp(&id, &received_id, sizeof(id)) == 0 && pixels(received, 7, false) == 0);
	primeshare_buffer_unref(received);
	CHECK(send(ends[0], "nonsense", 8, 0) == 8);
	CHECK(primeshare_buffer_receive_wait(ends[1], &received) < 0);
	close(ends[0]);
	FAILS(primeshare_buffer_receive_wait(ends[1], &received), ECONNRESET);
	close(ends[1]);
	FAILS(primeshare_buffer_send(buffer, -1), EBADF);
	primeshare_buffer_unref(buffer);
	primeshare_device_unref(vgem);
}

static void a_mapping_is_used_during_an_access_only(void) {
	struct primeshare_device *vgem = device_of("vgem", 0);
	struct primeshare_buffer *buffer = dumb(vgem, 64, 64);
	struct primeshare_mapping *mapping;
	struct primeshare_mapped_plane plane;
	OK(primeshare_mapping_create(buffer, true, &mapping));
	FAILS(primeshare_mapping_get_plane(mapping, 0, &plane), EINVAL);
	FAILS(primeshare_mapping_end(mapping), EINVAL);
	CHECK(primeshare_mapping_begin_wait(mapping, PRIMESHARE_ACCESS_WRITE, 0) < 0);
	FAILS(primeshare_mapping_begin_wait(mapping, 0, 0), EINVAL);
	OK(primeshare_mapping_begin_wait(mapping, PRIMESHARE_ACCESS_READ, -1));
	FAILS(primeshare_mapping_begin_wait(mapping, PRIMESHARE_ACCESS_READ, -1), EBUSY);
	CHECK(primeshare_mapping_get_plane(mapping, 1, &plane) < 0);
	/* Ends the access as well. */
	primeshare_mapping_destroy(mapping);
	primeshare_mapping_destroy(NULL);
	primeshare_buffer_unref(buffer);
	primeshare_device_unref(vgem);
}

int main(void) {
	RUN(every_allocator_makes_memory_that_keeps_a_picture);
	RUN(gbm_allocates_with_the_modifier_that_was_asked_for);
	RUN(a_buffer_from_outside_is_checked);
	RUN(a_buffer_goes_to_another_process_and_is_the_same);
	RUN(a_mapping_is_used_during_an_access_only);
}
