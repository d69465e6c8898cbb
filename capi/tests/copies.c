/* Copies between devices. */
#include "check.h"

#include <poll.h>

static struct primeshare_blitter *blitter_for(const struct primeshare_device *from, const struct primeshare_device *to,
		uint32_t gpu) {
	struct primeshare_blitter *blitter;
	struct primeshare_blitter_options options = {.size = sizeof(options), .gpu = gpu};
	OK(primeshare_blitter_create(from, to, &options, &blitter));
	return blitter;
}

static void copy_and_wait(const struct primeshare_blitter *blitter, const struct primeshare_buffer *from,
		const struct primeshare_buffer *to, const struct primeshare_blit_info *info) {
	struct primeshare_copy *copy;
	OK(primeshare_blitter_blit(blitter, from, to, info, &copy));
	OK(primeshare_copy_wait(copy, PATIENCE_NS));
	CHECK(primeshare_copy_is_done(copy) == 1);
	struct pollfd readable = {.fd = primeshare_copy_fd(copy), .events = POLLIN};
	CHECK(poll(&readable, 1, 0) == 1 && readable.revents == POLLIN);
	int fence = -2;
	OK(primeshare_copy_export_fence(copy, &fence));
	CHECK(fence == -1);
	primeshare_copy_unref(primeshare_copy_ref(copy));
	primeshare_copy_unref(copy);
}

static void a_picture_gets_across(uint32_t gpu) {
	struct primeshare_device *vgem = device_of("vgem", 0), *vkms = device_of("vkms", 0);
	struct primeshare_blitter *blitter = blitter_for(vgem, vkms, gpu);
	struct primeshare_buffer *from = dumb(vgem, 200, 100), *to = dumb(vkms, 200, 100);
	for (uint32_t seed = 1; seed < 4; seed++) {
		pixels(from, seed, true);
		copy_and_wait(blitter, from, to, NULL);
		CHECK(pixels(to, seed, false) == 0);
	}
	OK(primeshare_blitter_settle_wait(blitter, from, to, PATIENCE_NS));
	char text[4096], cut[5];
	int length = primeshare_blitter_describe(blitter, from, to, text, sizeof(text));
	CHECK(length > 0 && (size_t)length == strlen(text) && strstr(text, "cpu") != NULL);
	CHECK(primeshare_blitter_describe(blitter, from, to, cut, sizeof(cut)) == length && strlen(cut) == 4);
	CHECK(primeshare_blitter_describe(blitter, from, to, NULL, 0) == length);
	primeshare_blitter_unref_wait(primeshare_blitter_ref(blitter));
	primeshare_blitter_unref_wait(blitter);
	primeshare_buffer_unref(from);
	primeshare_buffer_unref(to);
	primeshare_device_unref(vgem);
	primeshare_device_unref(vkms);
}

static void a_picture_gets_across_by_the_cpu(void) {
	a_picture_gets_across(PRIMESHARE_GPU_NONE);
}

static void a_picture_gets_across_by_software_vulkan(void) {
	a_picture_gets_across(PRIMESHARE_GPU_SOFTWARE);
}

static void a_picture_gets_across_by_what_is_there(void) {
	a_picture_gets_across(PRIMESHARE_GPU_AUTO);
}

static void what_is_not_damaged_is_not_copied(void) {
	struct primeshare_device *vgem = device_of("vgem", 0);
	struct primeshare_blitter *blitter = blitter_for(vgem, vgem, PRIMESHARE_GPU_NONE);
	struct primeshare_buffer *from = dumb(vgem, 100, 100), *to = dumb(vgem, 100, 100);
	const struct primeshare_box box = {10, 20, 30, 50};
	struct primeshare_blit_info info = {.size = sizeof(info), .damage = &box};
	pixels(from, 1, true);
	pixels(to, 2, true);
	/* No boxes: nothing. */
	copy_and_wait(blitter, from, to, &info);
	CHECK(pixels(to, 2, false) == 0);
	info.damage_count = 1;
	copy_and_wait(blitter, from, to, &info);
	CHECK(pixels(to, 2, false) == 20 * 30);
	info.damage = NULL;
	info.damage_count = 0;
	copy_and_wait(blitter, from, to, &info);
	CHECK(pixels(to, 1, false) == 0);
	primeshare_blitter_unref_wait(blitter);
	primeshare_buffer_unref(from);
	primeshare_buffer_unref(to);
	primeshare_device_unref(vgem);
}

static void pictures_are_scaled_and_turned(void) {
	struct primeshare_device *vgem = device_of("vgem", 0);
	struct primeshare_blitter *blitter = blitter_for(vgem, vgem, PRIMESHARE_GPU_NONE);
	struct primeshare_buffer *from = dumb(vgem, 64, 32), *to = dumb(vgem, 64, 32);
	struct primeshare_blit_info info = {.size = sizeof(info), .source = {0, 0, 64, 32}, .destination = {0, 0, 64, 32},
		.transform = 2 /* 180 degrees */};
	pixels(from, 1, true);
	copy_and_wait(blitter, from, to, &info);
	CHECK(pixels(to, 1, false) > 0);
	copy_and_wait(blitter, to, from, &info);
	CHECK(pixels(from, 1, false) == 0);
	/* Each pixel four times. */
	info.transform = 0;
	info.source.width = 32;
	info.source.height = 16;
	copy_and_wait(blitter, from, to, &info);
	struct primeshare_copy *copy = NULL;
	info.transform = 8;
	FAILS(primeshare_blitter_blit(blitter, from, to, &info, &copy), EINVAL);
	info.transform = 0;
	info.filter = 9;
	FAILS(primeshare_blitter_blit(blitter, from, to, &info, &copy), EINVAL);
	info.filter = 0;
	info.source.width = 65;
	FAILS(primeshare_blitter_blit(blitter, from, to, &info, &copy), EINVAL);
	CHECK(copy == NULL);
	primeshare_blitter_unref_wait(blitter);
	primeshare_buffer_unref(from);
	primeshare_buffer_unref(to);
	primeshare_device_unref(vgem);
}

static void numbers_of_ycbcr_mean_what_is_said(void) {
	struct primeshare_device *vgem = device_of("vgem", 0);
	struct primeshare_blitter *blitter = blitter_for(vgem, vgem, PRIMESHARE_GPU_NONE);
	struct primeshare_buffer *from = dumb_of(vgem, 64, 64, NV12), *to = dumb(vgem, 64, 64);
	struct primeshare_blit_info info = {.size = sizeof(info)};
	struct primeshare_copy *copy = NULL;
	plane_of(from, 0, 16);
	plane_of(from, 1, 128);
	copy_and_wait(blitter, from, to, &info);
	CHECK(plane_of(to, 0, -1) == 0);
	info.ycbcr_range = PRIMESHARE_RANGE_FULL;
	copy_and_wait(blitter, from, to, &info);
	CHECK(plane_of(to, 0, -1) == 16);
	/* Blue has another weight in each. */
	plane_of(from, 0, 200);
	plane_of(from, 1, 90);
	copy_and_wait(blitter, from, to, &info);
	int by_709 = plane_of(to, 0, -1);
	info.ycbcr_matrix = PRIMESHARE_MATRIX_BT601;
	copy_and_wait(blitter, from, to, &info);
	CHECK(plane_of(to, 0, -1) != by_709);
	info.ycbcr_matrix = 3;
	FAILS(primeshare_blitter_blit(blitter, from, to, &info, &copy), EINVAL);
	info.ycbcr_matrix = PRIMESHARE_MATRIX_BT2020;
	info.ycbcr_range = 2;
	FAILS(primeshare_blitter_blit(blitter, from, to, &info, &copy), EINVAL);
	CHECK(copy == NULL);
	primeshare_blitter_unref_wait(blitter);
	primeshare_buffer_unref(from);
	primeshare_buffer_unref(to);
	primeshare_device_unref(vgem);
}

static void copies_of_a_stream_wait_for_each_other_and_for_no_others(void) {
	struct primeshare_device *vgem = device_of("vgem", 0);
	struct primeshare_blitter *blitter = blitter_for(vgem, vgem, PRIMESHARE_GPU_NONE);
	struct primeshare_buffer *from = dumb(vgem, 64, 64), *to[3];
	struct primeshare_copy *copies[3];
	int pipe_ends[2];
	CHECK(pipe(pipe_ends) == 0);
	pixels(from, 4, true);
	for (int i = 0; i < 3; i++) {
		to[i] = dumb(vgem, 64, 64);
		struct primeshare_blit_info info = {.size = sizeof(info), .stream = i < 2 ? 7 : 8};
		info.fences = pipe_ends;
		info.fence_count = i == 0;
		OK(primeshare_blitter_blit(blitter, from, to[i], &info, &copies[i]));
	}
	OK(primeshare_copy_wait(copies[2], PATIENCE_NS));
	FAILS(primeshare_copy_wait(copies[1], 20 * 1000 * 1000), ETIMEDOUT);
	CHECK(write(pipe_ends[1], "x", 1) == 1);
	for (int i = 0; i < 3; i++) {
		OK(primeshare_copy_wait(copies[i], PATIENCE_NS));
		CHECK(pixels(to[i], 4, false) == 0);
		primeshare_copy_unref(copies[i]);
		primeshare_buffer_unref(to[i]);
	}
	close(pipe_ends[0]);
	close(pipe_ends[1]);
	primeshare_blitter_unref_wait(blitter);
	primeshare_buffer_unref(from);
	primeshare_device_unref(vgem);
}

static void a_copy_waits_for_its_fences(void) {
	struct primeshare_device *vgem = device_of("vgem", 0);
	struct primeshare_blitter *blitter = blitter_for(vgem, vgem, PRIMESHARE_GPU_NONE);
	struct primeshare_buffer *from = dumb(vgem, 64, 64), *to = dumb(vgem, 64, 64);
	struct primeshare_copy *copy;
	int pipe_ends[2], fence = -2;
	CHECK(pipe(pipe_ends) == 0);
	const int fences[] = {-1, pipe_ends[0]};
	struct primeshare_blit_info info = {.size = sizeof(info), .fences = fences, .fence_count = 2};
	pixels(from, 3, true);
	OK(primeshare_blitter_blit(blitter, from, to, &info, &copy));
	CHECK(primeshare_copy_is_done(copy) == 0);
	FAILS(primeshare_copy_wait(copy, 1000 * 1000), ETIMEDOUT);
	FAILS(primeshare_copy_export_fence(copy, &fence), EOPNOTSUPP);
	CHECK(write(pipe_ends[1], "x", 1) == 1);
	OK(primeshare_copy_wait(copy, -1));
	CHECK(pixels(to, 3, false) == 0);
	primeshare_copy_unref(copy);
	primeshare_blitter_unref_wait(blitter);
	close(pipe_ends[0]);
	close(pipe_ends[1]);
	primeshare_buffer_unref(from);
	primeshare_buffer_unref(to);
	primeshare_device_unref(vgem);
}

static void what_cannot_be_copied_is_refused(void) {
	struct primeshare_device *vgem = device_of("vgem", 0);
	struct primeshare_blitter *blitter = blitter_for(vgem, vgem, PRIMESHARE_GPU_NONE), *other = NULL;
	struct primeshare_buffer *from = dumb(vgem, 64, 64), *to = dumb(vgem, 32, 64);
	struct primeshare_copy *copy = NULL;
	FAILS(primeshare_blitter_blit(blitter, from, to, NULL, &copy), EINVAL);
	FAILS(primeshare_blitter_blit(blitter, from, from, NULL, &copy), EINVAL);
	CHECK(copy == NULL);
	struct primeshare_blitter_options options = {.size = sizeof(options), .strategies = "cpu,teleport"};
	FAILS(primeshare_blitter_create(vgem, vgem, &options, &other), EINVAL);
	CHECK(strstr(primeshare_last_error_message(), "teleport") != NULL);
	options.strategies = NULL;
	options.in_flight = 65;
	CHECK(primeshare_blitter_create(vgem, vgem, &options, &other) < 0);
	options.in_flight = 0;
	options.push = 9;
	FAILS(primeshare_blitter_create(vgem, vgem, &options, &other), EINVAL);
	options.push = PRIMESHARE_PUSH_NEVER;
	options.gpu = 9;
	FAILS(primeshare_blitter_create(vgem, vgem, &options, &other), EINVAL);
	options.gpu = PRIMESHARE_GPU_NONE;
	options.sync_files = 9;
	FAILS(primeshare_blitter_create(vgem, vgem, &options, &other), EINVAL);
	CHECK(other == NULL);
	primeshare_blitter_unref_wait(blitter);
	primeshare_buffer_unref(from);
	primeshare_buffer_unref(to);
	primeshare_device_unref(vgem);
}

int main(void) {
	/* The Vulkan loader, and what drivers keep, stay open: the first blitter is made before anything is counted. */
	struct primeshare_device *vgem = device_of("vgem", 0);
	primeshare_blitter_unref_wait(blitter_for(vgem, vgem, PRIMESHARE_GPU_SOFTWARE));
	primeshare_device_unref(vgem);
	RUN(a_picture_gets_across_by_the_cpu);
	RUN(a_picture_gets_across_by_software_vulkan);
	RUN(a_picture_gets_across_by_what_is_there);
	RUN(what_is_not_damaged_is_not_copied);
	RUN(pictures_are_scaled_and_turned);
	RUN(numbers_of_ycbcr_mean_what_is_said);
	RUN(copies_of_a_stream_wait_for_each_other_and_for_no_others);
	RUN(a_copy_waits_for_its_fences);
	RUN(what_cannot_be_copied_is_refused);
}
