/* Many threads on the same objects. */
#include "check.h"

#include <pthread.h>

#define THREADS 4
#define ROUNDS 200

struct shared {
	struct primeshare_device *from, *to;
	struct primeshare_buffer *buffer;
	struct primeshare_blitter *blitter;
};

static void *work(void *data) {
	struct shared *shared = data;
	struct primeshare_buffer *own = dumb(shared->to, 64, 64);
	for (int i = 0; i < ROUNDS; i++) {
		struct primeshare_import *import;
		uint32_t handles[4];
		OK(primeshare_device_import(shared->to, shared->buffer, &import));
		OK(primeshare_import_get_handles(import, handles, NULL));
		CHECK(handles[0] != 0);
		primeshare_import_unref(import);
		if (i % 50 == 0) {
			struct primeshare_copy *copy;
			int error = primeshare_blitter_blit(shared->blitter, shared->buffer, own, NULL, &copy);
			CHECK(error == 0 || error == -EBUSY);
			if (error == 0) {
				OK(primeshare_copy_wait(copy, PATIENCE_NS));
				primeshare_copy_unref(copy);
				CHECK(pixels(own, 9, false) == 0);
			}
		}
	}
	/* Errors are of a thread. */
	char path[64];
	snprintf(path, sizeof(path), "/dev/dri/none-%p", (void *)&path);
	struct primeshare_device *none;
	FAILS(primeshare_device_open(path, &none), ENOENT);
	usleep(1000);
	CHECK(strstr(primeshare_last_error_message(), path) != NULL);
	primeshare_buffer_unref(own);
	return NULL;
}

static void threads_share_devices_buffers_and_blitters(void) {
	struct shared shared = {.from = device_of("vgem", 0), .to = device_of("vkms", 0)};
	struct primeshare_blitter_options options = {
		.size = sizeof(options), .gpu = PRIMESHARE_GPU_NONE, .in_flight = THREADS};
	pthread_t threads[THREADS];
	shared.buffer = dumb(shared.from, 64, 64);
	pixels(shared.buffer, 9, true);
	OK(primeshare_blitter_create(shared.from, shared.to, &options, &shared.blitter));
	for (int i = 0; i < THREADS; i++)
		CHECK(pthread_create(&threads[i], NULL, work, &shared) == 0);
	for (int i = 0; i < THREADS; i++)
		CHECK(pthread_join(threads[i], NULL) == 0);
	struct primeshare_table_statistics statistics = {.size = sizeof(statistics)};
	primeshare_blitter_unref_wait(shared.blitter);
	OK(primeshare_device_get_statistics(shared.to, &statistics));
	CHECK(statistics.handles == 0 && statistics.failed_closes == 0);
	primeshare_buffer_unref(shared.buffer);
	primeshare_device_unref(shared.from);
	primeshare_device_unref(shared.to);
}

int main(void) {
	RUN(threads_share_devices_buffers_and_blitters);
}
