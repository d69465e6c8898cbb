/* What the tests in C share: checks, devices of the guest, and the check that nothing is left behind. */
#ifndef CHECK_H
#define CHECK_H

#include <dirent.h>
#include <errno.h>
#include <primeshare-blit.h>
#include <primeshare-gbm.h>
#include <primeshare-kms.h>
#include <primeshare-vulkan.h>
#include <primeshare.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifdef __SANITIZE_ADDRESS__
/* Mesa's part of gbm stays loaded, so that what it allocates once and never frees can be told from leaks of ours. */
#include <dlfcn.h>
__attribute__((constructor)) static void keep_mesa(void) {
	dlopen("/usr/lib/x86_64-linux-gnu/gbm/dri_gbm.so", RTLD_NOW | RTLD_NODELETE);
}
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void) {
	return "leak:dri_gbm\nleak:libgallium\n";
}
#endif

#define XRGB8888 0x34325258u
#define ARGB8888 0x34325241u
#define NV12 0x3231564eu
#define LINEAR 0
#define INVALID 0x00ffffffffffffffull
#define SECOND_NS (1000ll * 1000 * 1000)
#define PATIENCE_NS (60 * SECOND_NS)

#define CHECK(condition) check((condition), #condition, __FILE__, __LINE__)
/* A call that has to succeed. */
#define OK(call) check_result((call), 0, #call, __FILE__, __LINE__)
/* A call that has to fail with this errno. */
#define FAILS(call, number) check_result((call), -(number), #call, __FILE__, __LINE__)

static inline void check(bool is_so, const char *what, const char *file, int line) {
	if (is_so)
		return;
	fprintf(stderr, "%s:%d: not so: %s\nlast error: %s: %s\n", file, line, what, primeshare_last_error_operation(),
		primeshare_last_error_message());
	abort();
}

static inline void check_result(int result, int expected, const char *what, const char *file, int line) {
	if (result == expected)
		return;
	fprintf(stderr, "%s:%d: %s is %d (%s), and not %d\nlast error: %s: %s\n", file, line, what, result,
		strerror(result < 0 ? -result : 0), expected, primeshare_last_error_operation(),
		primeshare_last_error_message());
	abort();
}

static inline size_t open_fds(void) {
	DIR *directory = opendir("/proc/self/fd");
	CHECK(directory != NULL);
	size_t count = 0;
	while (readdir(directory) != NULL)
		count++;
	closedir(directory);
	return count;
}

/* dma-bufs that exist, in all processes. */
static inline long dma_bufs(void) {
	FILE *file = fopen("/sys/kernel/debug/dma_buf/bufinfo", "r");
	char line[512];
	long count = -1;
	while (file != NULL && fgets(line, sizeof(line), file) != NULL)
		sscanf(line, "Total %ld objects", &count);
	if (file != NULL)
		fclose(file);
	return count;
}

/* A device of this driver, of those that have dumb buffers and screens; `skip` leaves out so many. */
static inline struct primeshare_device *device_of(const char *driver, int skip) {
	struct primeshare_device *devices[16], *found = NULL;
	size_t count = 0;
	OK(primeshare_device_open_all(devices, 16, &count));
	CHECK(count <= 16);
	for (size_t i = 0; i < count; i++) {
		struct primeshare_device_info info = {.size = sizeof(info)};
		OK(primeshare_device_get_info(devices[i], &info));
		bool is_it = strcmp(primeshare_device_driver(devices[i]), driver) == 0 && !info.is_render_node;
		if (found == NULL && is_it && skip-- == 0)
			found = devices[i];
		else
			primeshare_device_unref(devices[i]);
	}
	CHECK(found != NULL);
	return found;
}

static inline struct primeshare_buffer *dumb_of(const struct primeshare_device *device, uint32_t width, uint32_t height,
	uint32_t format) {
	struct primeshare_allocator *allocator;
	struct primeshare_buffer *buffer;
	struct primeshare_request request = {
		.size = sizeof(request), .width = width, .height = height, .format = format};
	OK(primeshare_allocator_create_dumb(device, &allocator));
	OK(primeshare_allocator_allocate(allocator, &request, &buffer));
	primeshare_allocator_unref(allocator);
	return buffer;
}

static inline struct primeshare_buffer *dumb(const struct primeshare_device *device, uint32_t width, uint32_t height) {
	return dumb_of(device, width, height, XRGB8888);
}

/* Sets all bytes of a buffer's plane, or returns the first byte of its first row if `value` is negative. */
static inline int plane_of(const struct primeshare_buffer *buffer, size_t index, int value) {
	struct primeshare_mapping *mapping;
	struct primeshare_mapped_plane plane;
	OK(primeshare_mapping_create(buffer, value < 0, &mapping));
	OK(primeshare_mapping_begin_wait(mapping, value < 0 ? PRIMESHARE_ACCESS_READ : PRIMESHARE_ACCESS_WRITE, PATIENCE_NS));
	OK(primeshare_mapping_get_plane(mapping, index, &plane));
	for (size_t y = 0; value >= 0 && y < plane.rows; y++)
		memset((char *)plane.data + y * plane.stride, value, plane.row_bytes);
	int first = *(unsigned char *)plane.data;
	OK(primeshare_mapping_end(mapping));
	primeshare_mapping_destroy(mapping);
	return first;
}

/* A pixel of a picture in which neighbours differ. */
static inline uint32_t pixel_at(uint32_t seed, uint32_t x, uint32_t y) {
	return (seed * 16 + x * 3 + y * 7 * 256 + (x ^ y) * 65536) & 0xffffff;
}

/* Draws a picture, or compares the buffer with it; returns how many pixels differ. */
static inline size_t pixels(const struct primeshare_buffer *buffer, uint32_t seed, bool draw) {
	struct primeshare_mapping *mapping;
	struct primeshare_mapped_plane plane;
	struct primeshare_buffer_info info = {.size = sizeof(info)};
	size_t differ = 0;
	OK(primeshare_buffer_get_info(buffer, &info));
	OK(primeshare_mapping_create(buffer, !draw, &mapping));
	OK(primeshare_mapping_begin_wait(mapping, draw ? PRIMESHARE_ACCESS_WRITE : PRIMESHARE_ACCESS_READ, PATIENCE_NS));
	OK(primeshare_mapping_get_plane(mapping, 0, &plane));
	CHECK(plane.rows == info.height && plane.row_bytes == 4 * (size_t)info.width && plane.stride >= plane.row_bytes);
	for (uint32_t y = 0; y < info.height; y++) {
		uint32_t *row = (uint32_t *)((char *)plane.data + y * plane.stride);
		for (uint32_t x = 0; x < info.width; x++) {
			if (draw)
				row[x] = pixel_at(seed, x, y);
			else
				differ += (row[x] & 0xffffff) != pixel_at(seed, x, y);
		}
	}
	OK(primeshare_mapping_end(mapping));
	primeshare_mapping_destroy(mapping);
	return differ;
}

typedef void (*test_function)(void);

/* Runs a test, and looks whether it leaves fds or dma-bufs behind. */
static inline void run(const char *name, test_function test) {
	size_t fds = open_fds();
	long buffers = dma_bufs();
	fprintf(stderr, "test %s ...\n", name);
	test();
	CHECK(open_fds() == fds);
	/* The kernel's workers let go of a frame or a fence a moment later. */
	for (int i = 0; i < 500 && dma_bufs() != buffers; i++)
		usleep(10000);
	CHECK(dma_bufs() == buffers);
}

#define RUN(test) run(#test, test)

#endif
