/* Devices, the handle table and the log. */
#include "check.h"

#include <fcntl.h>
#include <sys/stat.h>

static void the_version_and_the_layers_are_told(void) {
	CHECK(strncmp(primeshare_version(), "0.", 2) == 0);
	CHECK(primeshare_has_feature("gbm") && primeshare_has_feature("vulkan"));
	CHECK(primeshare_has_feature("blit") && primeshare_has_feature("kms"));
	CHECK(!primeshare_has_feature("toaster") && !primeshare_has_feature(NULL));
}

static void a_failure_says_what_failed_and_a_success_does_not_clear_it(void) {
	struct primeshare_device *device = NULL;
	FAILS(primeshare_device_open("/dev/dri/card77", &device), ENOENT);
	CHECK(device == NULL);
	CHECK(strcmp(primeshare_last_error_operation(), "primeshare_device_open") == 0);
	CHECK(strstr(primeshare_last_error_message(), "/dev/dri/card77") != NULL);
	enum primeshare_error_kind kind = primeshare_last_error_kind();
	CHECK(kind == PRIMESHARE_ERROR_INVALID);
	CHECK(primeshare_last_error_linux_dmabuf() == -1);
	CHECK(!primeshare_has_feature("toaster"));
	CHECK(strcmp(primeshare_last_error_operation(), "primeshare_device_open") == 0);
	CHECK(primeshare_device_open("/dev/null", &device) < 0 && device == NULL);
}

static void a_device_tells_what_it_is(void) {
	struct primeshare_device *vkms = device_of("vkms", 0), *other = device_of("vgem", 0), *again;
	struct primeshare_device_info info = {.size = sizeof(info)}, again_info = {.size = sizeof(info)};
	OK(primeshare_device_get_info(vkms, &info));
	CHECK(info.dumb == 1 && info.exports == 1 && info.imports == 1 && info.imports_scattered == 1);
	struct stat stat_of;
	CHECK(stat(primeshare_device_path(vkms), &stat_of) == 0 && stat_of.st_rdev == info.device_number);
	CHECK(fstat(primeshare_device_fd(vkms), &stat_of) == 0 && stat_of.st_rdev == info.device_number);
	OK(primeshare_device_find(info.device_number, &again));
	OK(primeshare_device_get_info(again, &again_info));
	uint64_t key = 0;
	OK(primeshare_device_key_of(info.device_number, &key));
	CHECK(again_info.key == info.key && key == info.key);
	CHECK(primeshare_device_is_same(vkms, again) && !primeshare_device_is_same(vkms, other));
	FAILS(primeshare_device_find(0, &again), ENOENT);
	/* Room for none: all are counted, and closed again. */
	size_t count = 0;
	OK(primeshare_device_open_all(NULL, 0, &count));
	CHECK(count >= 3);
	primeshare_device_unref(primeshare_device_ref(vkms));
	primeshare_device_unref(vkms);
	primeshare_device_unref(again);
	primeshare_device_unref(other);
}

static uint64_t handles_of(const struct primeshare_device *device) {
	struct primeshare_table_statistics statistics = {.size = sizeof(statistics)};
	OK(primeshare_device_get_statistics(device, &statistics));
	CHECK(statistics.failed_closes == 0);
	return statistics.handles;
}

static void an_object_has_one_handle_and_comes_home_as_itself(void) {
	struct primeshare_device *vgem = device_of("vgem", 0), *vkms = device_of("vkms", 0);
	struct primeshare_buffer *buffer = dumb(vgem, 64, 64);
	struct primeshare_buffer_info info = {.size = sizeof(info)};
	struct primeshare_buffer_id id, exported_id;
	struct primeshare_object *first, *second, *home;
	enum primeshare_import_origin origin;
	int fd;
	OK(primeshare_buffer_get_info(buffer, &info));
	OK(primeshare_buffer_get_id(buffer, &id));
	OK(primeshare_device_import_fd(vkms, info.planes[0].fd, &first, &origin));
	CHECK(origin == PRIMESHARE_IMPORT_NEW);
	OK(primeshare_device_import_fd(vkms, info.planes[0].fd, &second, &origin));
	CHECK(origin == PRIMESHARE_IMPORT_ALREADY_IMPORTED);
	CHECK(primeshare_object_handle(first) == primeshare_object_handle(second) && handles_of(vkms) == 1);
	OK(primeshare_device_import_fd(vgem, info.planes[0].fd, &home, &origin));
	CHECK(origin == PRIMESHARE_IMPORT_SELF);
	OK(primeshare_object_export(first, &fd, &exported_id));
	CHECK(exported_id.device == id.device && exported_id.inode == id.inode);
	CHECK((fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0);
	close(fd);
	primeshare_object_unref(primeshare_object_ref(first));
	primeshare_object_unref(first);
	CHECK(handles_of(vkms) == 1);
	primeshare_object_unref(second);
	CHECK(handles_of(vkms) == 0);
	primeshare_object_unref(home);
	/* A socket is no dma-buf, and neither is a closed fd. */
	int other = open("/dev/null", O_RDONLY | O_CLOEXEC);
	CHECK(primeshare_device_import_fd(vkms, other, &first, NULL) < 0);
	close(other);
	FAILS(primeshare_device_import_fd(vkms, 1000, &first, NULL), EBADF);
	FAILS(primeshare_device_import_fd(vkms, -1, &first, NULL), EBADF);
	primeshare_buffer_unref(buffer);
	CHECK(handles_of(vgem) == 0);
	primeshare_device_unref(vgem);
	primeshare_device_unref(vkms);
}

static void an_import_is_the_same_one_until_its_last_reference(void) {
	struct primeshare_device *vgem = device_of("vgem", 0), *vkms = device_of("vkms", 0);
	struct primeshare_buffer *buffer = dumb(vgem, 64, 64);
	struct primeshare_import *import, *again;
	uint32_t handles[4];
	enum primeshare_import_origin origin;
	OK(primeshare_device_import(vkms, buffer, &import));
	OK(primeshare_device_import(vkms, buffer, &again));
	CHECK(import == again);
	OK(primeshare_import_get_handles(import, handles, &origin));
	CHECK(handles[0] != 0 && handles[1] == 0 && origin == PRIMESHARE_IMPORT_NEW);
	primeshare_import_unref(primeshare_import_ref(import));
	primeshare_import_unref(import);
	CHECK(handles_of(vkms) == 1);
	primeshare_import_unref(again);
	CHECK(handles_of(vkms) == 0);
	primeshare_buffer_unref(buffer);
	primeshare_device_unref(vgem);
	primeshare_device_unref(vkms);
}

static void a_programs_own_handle_is_adopted(void) {
	struct primeshare_device *vgem = device_of("vgem", 0), *vkms = device_of("vkms", 0), *shared;
	struct primeshare_buffer *buffer = dumb(vgem, 64, 64);
	struct primeshare_object *object, *adopted;
	struct primeshare_buffer_info info = {.size = sizeof(info)};
	OK(primeshare_buffer_get_info(buffer, &info));
	/* A device of the same file description has the same table. */
	OK(primeshare_device_from_fd(primeshare_device_fd(vkms), &shared));
	OK(primeshare_device_import_fd(shared, info.planes[0].fd, &object, NULL));
	CHECK(handles_of(vkms) == 1);
	OK(primeshare_device_adopt(vkms, primeshare_object_handle(object), &adopted));
	CHECK(primeshare_object_handle(adopted) == primeshare_object_handle(object) && handles_of(vkms) == 1);
	primeshare_object_unref(adopted);
	primeshare_object_unref(object);
	FAILS(primeshare_device_adopt(vkms, 4711, &adopted), ENOENT);
	primeshare_device_unref(shared);
	/* Another file description has a table of its own. */
	OK(primeshare_device_private_copy_of(primeshare_device_fd(vkms), &shared));
	OK(primeshare_device_import_fd(shared, info.planes[0].fd, &object, NULL));
	CHECK(handles_of(vkms) == 0 && handles_of(shared) == 1);
	primeshare_object_unref(object);
	primeshare_device_unref(shared);
	FAILS(primeshare_device_from_fd(-1, &shared), EBADF);
	FAILS(primeshare_device_private_copy_of(-1, &shared), EBADF);
	primeshare_buffer_unref(buffer);
	primeshare_device_unref(vgem);
	primeshare_device_unref(vkms);
}

static void count_lines(enum primeshare_log_level level, const char *message, void *data) {
	CHECK(level <= PRIMESHARE_LOG_DEBUG && message[0] != 0);
	++*(int *)data;
}

static void the_log_goes_to_a_handler_until_it_is_taken_back(void) {
	int lines = 0;
	struct primeshare_device *device = device_of("vgem", 0);
	struct primeshare_blitter *blitter;
	struct primeshare_blitter_options options = {.size = sizeof(options), .strategies = "cpu"};
	OK(primeshare_set_log_handler(count_lines, PRIMESHARE_LOG_DEBUG, &lines));
	setenv("PRIMESHARE_BLIT", "cpu,nonsense", 1);
	OK(primeshare_blitter_create(device, device, &options, &blitter));
	CHECK(lines > 0);
	OK(primeshare_set_log_handler(NULL, PRIMESHARE_LOG_DEBUG, NULL));
	primeshare_blitter_unref_wait(blitter);
	int before = lines;
	OK(primeshare_blitter_create(device, device, &options, &blitter));
	CHECK(lines == before);
	unsetenv("PRIMESHARE_BLIT");
	primeshare_blitter_unref_wait(blitter);
	FAILS(primeshare_set_log_handler(count_lines, 9, &lines), EINVAL);
	primeshare_device_unref(device);
}

int main(void) {
	RUN(the_version_and_the_layers_are_told);
	RUN(a_failure_says_what_failed_and_a_success_does_not_clear_it);
	RUN(a_device_tells_what_it_is);
	RUN(an_object_has_one_handle_and_comes_home_as_itself);
	RUN(an_import_is_the_same_one_until_its_last_reference);
	RUN(a_programs_own_handle_is_adopted);
	RUN(the_log_goes_to_a_handler_until_it_is_taken_back);
}
