/* Fences, pending ones made by the kernel's sw_sync. */
#include "check.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/ioctl.h>

struct sw_sync_create {
	uint32_t value;
	char name[32];
	int32_t fence;
};
#define SW_SYNC_CREATE _IOWR('W', 0, struct sw_sync_create)
#define SW_SYNC_INC _IOW('W', 1, uint32_t)

static int timeline(void) {
	int fd = open("/sys/kernel/debug/sync/sw_sync", O_RDWR | O_CLOEXEC);
	CHECK(fd >= 0);
	return fd;
}

static int pending(int of_timeline) {
	struct sw_sync_create create = {.value = 1, .name = "test"};
	CHECK(ioctl(of_timeline, SW_SYNC_CREATE, &create) == 0);
	return create.fence;
}

static void signal_next(int of_timeline) {
	uint32_t steps = 1;
	CHECK(ioctl(of_timeline, SW_SYNC_INC, &steps) == 0);
}

static void a_fence_is_pending_and_then_signalled(void) {
	int clock = timeline(), fence = pending(clock);
	CHECK(primeshare_fence_is_signalled(fence) == 0);
	int result = primeshare_fence_wait(fence, 1000 * 1000);
	CHECK(result == -ETIME || result == -ETIMEDOUT);
	CHECK(primeshare_last_error_kind() == PRIMESHARE_ERROR_TIMED_OUT);
	signal_next(clock);
	CHECK(primeshare_fence_is_signalled(fence) == 1);
	OK(primeshare_fence_wait(fence, -1));
	CHECK(primeshare_fence_is_signalled(-1) == 1);
	OK(primeshare_fence_wait(-1, 0));
	FAILS(primeshare_fence_is_signalled(-2), EBADF);
	close(fence);
	close(clock);
}

static void a_merged_fence_waits_for_all(void) {
	int first_clock = timeline(), second_clock = timeline();
	int fences[3] = {pending(first_clock), -1, pending(second_clock)}, merged = -2;
	OK(primeshare_fence_merge(fences, 3, &merged));
	CHECK(merged >= 0 && (fcntl(merged, F_GETFD) & FD_CLOEXEC) != 0);
	signal_next(first_clock);
	CHECK(primeshare_fence_is_signalled(merged) == 0);
	signal_next(second_clock);
	CHECK(primeshare_fence_is_signalled(merged) == 1);
	close(merged);
	OK(primeshare_fence_merge(fences + 1, 1, &merged));
	CHECK(merged == -1);
	OK(primeshare_fence_merge(NULL, 0, &merged));
	CHECK(merged == -1);
	FAILS(primeshare_fence_merge(NULL, 2, &merged), EINVAL);
	close(fences[0]);
	close(fences[2]);
	close(first_clock);
	close(second_clock);
}

static void a_buffers_fences_are_those_of_who_uses_it(void) {
	struct primeshare_device *vgem = device_of("vgem", 0);
	struct primeshare_buffer *buffer = dumb(vgem, 64, 64);
	int clock = timeline(), fence = pending(clock), readers = -2, all = -2;
	OK(primeshare_buffer_import_fence(buffer, PRIMESHARE_ACCESS_READ, fence));
	OK(primeshare_buffer_import_fence(buffer, PRIMESHARE_ACCESS_WRITE, -1));
	OK(primeshare_buffer_export_fence(buffer, PRIMESHARE_ACCESS_READ, &readers));
	OK(primeshare_buffer_export_fence(buffer, PRIMESHARE_ACCESS_WRITE, &all));
	/* A reader does not wait for a reader; a writer does. */
	CHECK(primeshare_fence_is_signalled(readers) == 1 && primeshare_fence_is_signalled(all) == 0);
	signal_next(clock);
	CHECK(primeshare_fence_is_signalled(all) == 1);
	FAILS(primeshare_buffer_export_fence(buffer, 7, &all), EINVAL);
	close(readers);
	close(all);
	close(fence);
	close(clock);
	primeshare_buffer_unref(buffer);
	primeshare_device_unref(vgem);
}

int main(void) {
	RUN(a_fence_is_pending_and_then_signalled);
	RUN(a_merged_fence_waits_for_all);
	RUN(a_buffers_fences_are_those_of_who_uses_it);
}
