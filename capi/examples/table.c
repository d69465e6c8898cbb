/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * The handle table alone, beside GEM code that a program has already: it imports by the library, and calls GEM_CLOSE
 * nowhere. Prints what became of each import.
 *
 *     table [DEVICE]     such as /dev/dri/card1
 */
#include <fcntl.h>
#include <primeshare.h>
#include <stdio.h>
#include <unistd.h>

static int fail(const char *what) {
	fprintf(stderr, "table: %s: %s\n", what, primeshare_last_error_message());
	return 1;
}

static void print_table(const struct primeshare_device *device) {
	struct primeshare_table_statistics table = {.size = sizeof(table)};
	if (primeshare_device_get_statistics(device, &table) == 0)
		printf("    %llu handles open, %llu imported, %llu closed\n", (unsigned long long)table.handles,
			(unsigned long long)table.imports, (unsigned long long)table.closes);
}

/* What a client would have sent: a dma-buf of somebody else. */
static struct primeshare_buffer *from_somebody_else(void) {
	struct primeshare_allocator *allocator;
	struct primeshare_buffer *buffer = NULL;
	struct primeshare_request request = {
		.size = sizeof(request), .width = 640, .height = 480, .format = 0x34325258 /* DRM_FORMAT_XRGB8888 */};
	if (primeshare_allocator_create_udmabuf(&allocator) == 0) {
		primeshare_allocator_allocate(allocator, &request, &buffer);
		primeshare_allocator_unref(allocator);
	}
	return buffer;
}

int main(int argc, char **argv) {
	const char *path = argc > 1 ? argv[1] : "/dev/dri/card0";
	int fd = open(path, O_RDWR | O_CLOEXEC);
	struct primeshare_device *device;
	/* On the program's own file description: the handles are good for its ioctls. If other code imports there too, such
	 * as gbm, take primeshare_device_private_copy_of. */
	if (fd < 0 || primeshare_device_from_fd(fd, &device) != 0)
		return fail(path);
	printf("%s is driven by %s\n", primeshare_device_path(device), primeshare_device_driver(device));

	struct primeshare_buffer *buffer = from_somebody_else();
	struct primeshare_buffer_info info = {.size = sizeof(info)};
	if (buffer == NULL || primeshare_buffer_get_info(buffer, &info) != 0)
		return fail("a dma-buf");

	static const char *const origins[] = {"new", "imported already", "the device's own"};
	struct primeshare_object *objects[2];
	for (int i = 0; i < 2; i++) {
		enum primeshare_import_origin origin;
		if (primeshare_device_import_fd(device, info.planes[0].fd, &objects[i], &origin) != 0)
			return fail("import");
		printf("import %d: handle %u, %s\n", i + 1, primeshare_object_handle(objects[i]), origins[origin]);
		print_table(device);
	}
	/* DRM_IOCTL_MODE_ADDFB2 and others take the handle, as long as one of the objects lives. */
	for (int i = 0; i < 2; i++) {
		primeshare_object_unref(objects[i]);
		printf("user %d is done\n", i + 1);
		print_table(device);
	}
	primeshare_buffer_unref(buffer);
	primeshare_device_unref(device);
	close(fd);
	return 0;
}
