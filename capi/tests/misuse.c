/* What C allows, and the library finds. */
#include "check.h"

#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>

extern char **environ;
static char *program;

static void null_is_an_error_that_names_the_argument(void) {
	struct primeshare_device *device = device_of("vgem", 0);
	struct primeshare_buffer *buffer = dumb(device, 64, 64);
	struct primeshare_buffer_info info = {.size = sizeof(info)};
#define NAMES(call, name) \
	do { \
		FAILS(call, EINVAL); \
		CHECK(strstr(primeshare_last_error_message(), name) != NULL); \
		CHECK(primeshare_last_error_kind() == PRIMESHARE_ERROR_INVALID); \
	} while (0)
	struct primeshare_device *none;
	NAMES(primeshare_device_open(NULL, &none), "path");
	NAMES(primeshare_device_open("/dev/dri/card0", NULL), "device");
	NAMES(primeshare_device_fd(NULL), "device");
	NAMES(primeshare_device_get_info(device, NULL), "info is");
	NAMES(primeshare_device_key_of(0, NULL), "key");
	NAMES(primeshare_buffer_create(NULL, NULL), "info is");
	NAMES(primeshare_vulkan_device_wrap(NULL, NULL), "info is");
	NAMES(primeshare_buffer_get_info(NULL, &info), "buffer");
	NAMES(primeshare_buffer_get_id(buffer, NULL), "id");
	NAMES(primeshare_device_import(device, NULL, NULL), "buffer");
	NAMES(primeshare_device_import(device, buffer, NULL), "import");
	NAMES(primeshare_import_get_handles(NULL, NULL, NULL), "import");
	NAMES(primeshare_object_export(NULL, NULL, NULL), "object");
	NAMES(primeshare_allocator_allocate(NULL, NULL, NULL), "allocator");
	NAMES(primeshare_mapping_create(NULL, true, NULL), "buffer");
	NAMES(primeshare_mapping_begin_wait(NULL, 1, 0), "mapping");
	NAMES(primeshare_fence_merge(NULL, 0, NULL), "merged");
	NAMES(primeshare_endpoint_create(NULL, NULL, 0, NULL), "name");
	NAMES(primeshare_negotiate(NULL, 3, 1, 1, NULL, 0, 0, NULL), "endpoints");
	NAMES(primeshare_blitter_create(NULL, device, NULL, NULL), "source");
	NAMES(primeshare_copy_fd(NULL), "copy");
	NAMES(primeshare_framebuffers_get(NULL, buffer, 0, NULL), "framebuffers");
	NAMES(primeshare_presenter_dispatch(NULL, NULL, 0), "presenter");
	NAMES(primeshare_presenter_present(NULL, buffer, NULL, NULL), "presenter");
	NAMES(primeshare_vulkan_device_get_image(NULL, buffer, 0, NULL), "device");
	NAMES(primeshare_vulkan_image_acquire(NULL, NULL, 0), "image");
	NAMES(primeshare_vulkan_image_release(NULL, NULL, 0), "image");
	/* NULL is no object to give back, and to ask. */
	primeshare_device_unref(NULL);
	primeshare_buffer_unref(NULL);
	primeshare_presenter_destroy_wait(NULL);
	primeshare_vulkan_device_unref(primeshare_vulkan_device_ref(NULL));
	primeshare_vulkan_image_unref(primeshare_vulkan_image_ref(NULL));
	CHECK(primeshare_device_ref(NULL) == NULL && primeshare_device_driver(NULL) == NULL);
	CHECK(primeshare_object_handle(NULL) == 0 && primeshare_framebuffer_id(NULL) == 0);
	CHECK(primeshare_vulkan_image_handle(NULL) == 0 && primeshare_vulkan_image_format(NULL) == 0);
	primeshare_buffer_unref(buffer);
	primeshare_device_unref(device);
}

static void structs_say_how_large_they_are(void) {
	struct primeshare_device *device = device_of("vgem", 0);
	struct primeshare_allocator *allocator;
	struct primeshare_buffer *buffer = NULL;
	struct {
		struct primeshare_request request;
		uint64_t of_a_later_version;
	} large = {.request = {.size = sizeof(large), .width = 64, .height = 64, .format = XRGB8888}};
	OK(primeshare_allocator_create_dumb(device, &allocator));
	/* Fields that are not known are no harm while they are zero. */
	OK(primeshare_allocator_allocate(allocator, &large.request, &buffer));
	primeshare_buffer_unref(buffer);
	buffer = NULL;
	large.of_a_later_version = 1;
	FAILS(primeshare_allocator_allocate(allocator, &large.request, &buffer), E2BIG);
	for (size_t size = 0; size < sizeof(large.request); size += 8) {
		large.request.size = size;
		FAILS(primeshare_allocator_allocate(allocator, &large.request, &buffer), EINVAL);
	}
	large.request.size = 1u << 20;
	FAILS(primeshare_allocator_allocate(allocator, &large.request, &buffer), EINVAL);
	CHECK(buffer == NULL && strstr(primeshare_last_error_message(), "primeshare_request") != NULL);
	/* What is written out is no larger than the program has room for, and the rest of it is zero. */
	struct {
		struct primeshare_device_info info;
		uint64_t of_a_later_version, beyond;
	} wide = {.info = {.size = sizeof(wide.info) + 8}, .of_a_later_version = 7, .beyond = 7};
	OK(primeshare_device_get_info(device, &wide.info));
	CHECK(wide.of_a_later_version == 0 && wide.beyond == 7 && wide.info.size == sizeof(wide.info) + 8);
	primeshare_allocator_unref(allocator);
	primeshare_device_unref(device);
}

/* What must not be done: each in a process of its own. */
static void misuse(const char *what) {
	struct primeshare_device *device = device_of("vgem", 0);
	char garbage[256] = {0};
	/* What is wrong here is what is tested, and the compiler need not see it. */
	void *volatile pointer = device;
	if (strcmp(what, "twice") == 0) {
		primeshare_device_unref(device);
		primeshare_device_unref(pointer);
	} else if (strcmp(what, "other") == 0) {
		primeshare_buffer_unref(pointer);
	} else if (strcmp(what, "gone") == 0) {
		primeshare_device_unref(device);
		primeshare_device_fd(pointer);
	} else {
		pointer = garbage;
		primeshare_device_fd(pointer);
	}
}

static void a_debug_build_ends_the_process_before_harm_is_done(void) {
	static const char *const whats[] = {"twice", "other", "gone", "garbage"};
	for (size_t i = 0; i < 4; i++) {
		char *arguments[] = {program, (char *)whats[i], NULL};
		pid_t pid;
		int status;
		CHECK(posix_spawn(&pid, program, NULL, NULL, arguments, environ) == 0);
		CHECK(waitpid(pid, &status, 0) == pid);
		CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
	}
}

int main(int argc, char **argv) {
	program = argv[0];
	if (argc > 1) {
		misuse(argv[1]);
		return 0;
	}
	RUN(null_is_an_error_that_names_the_argument);
	RUN(structs_say_how_large_they_are);
	RUN(a_debug_build_ends_the_process_before_harm_is_done);
}
