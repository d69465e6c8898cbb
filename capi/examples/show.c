/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Shows frames of one device on a screen of another, with poll.
 *
 *     show SOURCE SCREEN [FRAMES]     such as /dev/dri/card0 /dev/dri/card1 300
 */
#include <fcntl.h>
#include <poll.h>
#include <primeshare-kms.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define BUFFERS 3

static void check(int result, const char *what) {
	if (result < 0) {
		fprintf(stderr, "show: %s: %s\n", what, primeshare_last_error_message());
		exit(1);
	}
}

/* A bar that moves by 8 pixels with each frame. */
static void draw(const struct primeshare_buffer *buffer, unsigned frame) {
	struct primeshare_mapping *mapping;
	struct primeshare_mapped_plane plane;
	check(primeshare_mapping_create(buffer, false, &mapping), "map");
	check(primeshare_mapping_begin_wait(mapping, PRIMESHARE_ACCESS_WRITE, 1000000000), "begin");
	check(primeshare_mapping_get_plane(mapping, 0, &plane), "plane");
	size_t width = plane.row_bytes / 4;
	for (size_t y = 0; y < plane.rows; y++) {
		uint32_t *row = (uint32_t *)((char *)plane.data + y * plane.stride);
		for (size_t x = 0; x < width; x++)
			row[x] = (x + width - frame * 8 % width) % width < 64 ? 0xffffff : 0x204060;
	}
	check(primeshare_mapping_end(mapping), "end");
	primeshare_mapping_destroy(mapping);
}

int main(int argc, char **argv) {
	struct primeshare_device *source;
	struct primeshare_card *card;
	struct primeshare_presenter *presenter;
	struct primeshare_allocator *allocator;
	struct primeshare_buffer *buffers[BUFFERS];
	uint32_t width, height;
	char text[512];
	if (argc < 3) {
		fprintf(stderr, "usage: show SOURCE SCREEN [FRAMES]\n");
		return 2;
	}
	unsigned frames = argc > 3 ? atoi(argv[3]) : 300, shown = 0, presented = 0;

	/* Whoever opens a node that nobody else has open is its master. */
	int fd = open(argv[2], O_RDWR | O_CLOEXEC);
	if (fd < 0) {
		perror(argv[2]);
		return 1;
	}
	check(primeshare_card_create(fd, &card), argv[2]);
	check(primeshare_device_open(argv[1], &source), argv[1]);
	check(primeshare_presenter_create(card, source, NULL, &presenter), "a screen");
	check(primeshare_presenter_get_mode(presenter, &width, &height, NULL), "mode");

	struct primeshare_request request = {
		.size = sizeof(request), .width = width, .height = height, .format = 0x34325258 /* DRM_FORMAT_XRGB8888 */};
	check(primeshare_allocator_create_dumb(source, &allocator), "allocator");
	for (int i = 0; i < BUFFERS; i++)
		check(primeshare_allocator_allocate(allocator, &request, &buffers[i]), "allocate");
	check(primeshare_presenter_describe(presenter, buffers[0], text, sizeof(text)), "describe");
	printf("%ux%u, frames of %s on %s: %s\n", width, height, primeshare_device_driver(source), argv[2], text);

	/* A frame is drawn when the one before it is on the screen: one buffer is shown, one is free, one is drawn into. */
	while (shown < frames) {
		if (presented == shown) {
			draw(buffers[presented % BUFFERS], presented);
			check(primeshare_presenter_present(presenter, buffers[presented % BUFFERS], NULL, NULL), "present");
			presented++;
		}
		struct pollfd fds[] = {{.fd = fd, .events = POLLIN},
			{.fd = primeshare_presenter_fd(presenter), .events = POLLIN}};
		if (poll(fds, 2, 10000) <= 0) {
			fprintf(stderr, "show: nothing came of the frame\n");
			return 1;
		}
		struct primeshare_page_flip flips[PRIMESHARE_MAX_PAGE_FLIPS];
		struct primeshare_present_event events[4];
		int count = primeshare_card_read_page_flips(card, flips);
		check(count, "page flips");
		for (int i = 0; i < count; i++)
			primeshare_presenter_page_flip(presenter, &flips[i]);
		count = primeshare_presenter_dispatch(presenter, events, 4);
		check(count, "dispatch");
		for (int i = 0; i < count; i++) {
			if (events[i].error < 0)
				printf("frame %llu was left out: %d\n", (unsigned long long)events[i].frame, events[i].error);
			shown++;
		}
	}
	printf("%u frames\n", shown);
	for (int i = 0; i < BUFFERS; i++)
		primeshare_buffer_unref(buffers[i]);
	primeshare_allocator_unref(allocator);
	primeshare_presenter_destroy_wait(presenter);
	primeshare_card_unref(card);
	primeshare_device_unref(source);
	close(fd);
	return 0;
}
