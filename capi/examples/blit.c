/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Draws on one device, copies to another, and writes what arrived as a PNG.
 *
 *     blit FROM TO FILE.png     such as /dev/dri/card0 /dev/dri/card1
 */
#include <primeshare-blit.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WIDTH 320
#define HEIGHT 240
#define SECOND 1000000000ll

static void check(int result, const char *what) {
	if (result < 0) {
		fprintf(stderr, "blit: %s: %s\n", what, primeshare_last_error_message());
		exit(1);
	}
}

static struct primeshare_buffer *allocate(const struct primeshare_device *device) {
	struct primeshare_allocator *allocator;
	struct primeshare_buffer *buffer;
	struct primeshare_request request = {
		.size = sizeof(request), .width = WIDTH, .height = HEIGHT, .format = 0x34325258 /* DRM_FORMAT_XRGB8888 */};
	check(primeshare_allocator_create_dumb(device, &allocator), "allocator");
	check(primeshare_allocator_allocate(allocator, &request, &buffer), "allocate");
	primeshare_allocator_unref(allocator);
	return buffer;
}

/* Rows of XRGB8888, between the access's begin and end. */
static struct primeshare_mapping *map(const struct primeshare_buffer *buffer, uint32_t access,
		struct primeshare_mapped_plane *plane) {
	struct primeshare_mapping *mapping;
	check(primeshare_mapping_create(buffer, access == PRIMESHARE_ACCESS_READ, &mapping), "map");
	check(primeshare_mapping_begin_wait(mapping, access, SECOND), "begin");
	check(primeshare_mapping_get_plane(mapping, 0, plane), "plane");
	return mapping;
}

static void draw(const struct primeshare_buffer *buffer) {
	struct primeshare_mapped_plane plane;
	struct primeshare_mapping *mapping = map(buffer, PRIMESHARE_ACCESS_WRITE, &plane);
	for (uint32_t y = 0; y < HEIGHT; y++) {
		uint32_t *row = (uint32_t *)((char *)plane.data + y * plane.stride);
		for (uint32_t x = 0; x < WIDTH; x++)
			row[x] = (x * 255 / WIDTH) << 16 | (y * 255 / HEIGHT) << 8 | ((x / 16 + y / 16) % 2 ? 160 : 60);
	}
	check(primeshare_mapping_end(mapping), "end");
	primeshare_mapping_destroy(mapping);
}

static uint32_t crc(const unsigned char *bytes, size_t count) {
	uint32_t value = 0xffffffff;
	for (size_t i = 0; i < count; i++) {
		value ^= bytes[i];
		for (int bit = 0; bit < 8; bit++)
			value = value >> 1 ^ (value & 1 ? 0xedb88320 : 0);
	}
	return ~value;
}

static unsigned char *put(unsigned char *at, uint32_t number) {
	for (int shift = 24; shift >= 0; shift -= 8)
		*at++ = number >> shift;
	return at;
}

/* `at` is behind the chunk's data, which `begin` is before: fills in length and checksum. */
static unsigned char *end_chunk(unsigned char *begin, unsigned char *at) {
	put(begin, at - begin - 8);
	return put(at, crc(begin + 4, at - begin - 4));
}

/* PNG with rows that are stored and not compressed: https://www.w3.org/TR/png-3/ */
static void write_png(const struct primeshare_buffer *buffer, const char *path) {
	static unsigned char file[128 + (WIDTH * 3 + 6) * HEIGHT];
	struct primeshare_mapped_plane plane;
	struct primeshare_mapping *mapping = map(buffer, PRIMESHARE_ACCESS_READ, &plane);
	unsigned char *at = file, *begin;
	uint32_t a = 1, b = 0;
	memcpy(at, "\x89PNG\r\n\x1a\n", 8);
	begin = at += 8;
	memcpy(at + 4, "IHDR", 4);
	at = put(put(at + 8, WIDTH), HEIGHT);
	memcpy(at, "\x08\x02\0\0\0", 5);
	begin = at = end_chunk(begin, at + 5);
	memcpy(at + 4, "IDAT\x78\x01", 6);
	at += 10;
	for (uint32_t y = 0; y < HEIGHT; y++) {
		const unsigned char *row = (const unsigned char *)plane.data + y * plane.stride;
		const uint16_t length = 1 + 3 * WIDTH;
		*at++ = y == HEIGHT - 1;
		*at++ = length & 255;
		*at++ = length >> 8;
		*at++ = ~length & 255;
		*at++ = (uint16_t)~length >> 8;
		unsigned char *first = at;
		*at++ = 0;
		for (uint32_t x = 0; x < WIDTH; x++)
			for (int channel = 2; channel >= 0; channel--)
				*at++ = row[4 * x + channel];
		for (; first < at; first++) {
			a = (a + *first) % 65521;
			b = (b + a) % 65521;
		}
	}
	begin = end_chunk(begin, put(at, b << 16 | a));
	memcpy(begin + 4, "IEND", 4);
	at = end_chunk(begin, begin + 8);
	primeshare_mapping_destroy(mapping);
	FILE *out = fopen(path, "wb");
	if (out == NULL || fwrite(file, 1, at - file, out) != (size_t)(at - file) || fclose(out) != 0) {
		perror(path);
		exit(1);
	}
}

int main(int argc, char **argv) {
	struct primeshare_device *from, *to;
	struct primeshare_blitter *blitter;
	struct primeshare_copy *copy;
	char text[4096];
	if (argc != 4) {
		fprintf(stderr, "usage: blit FROM TO FILE.png\n");
		return 2;
	}
	check(primeshare_device_open(argv[1], &from), "source");
	check(primeshare_device_open(argv[2], &to), "destination");
	struct primeshare_buffer *source = allocate(from), *destination = allocate(to);
	draw(source);
	check(primeshare_blitter_create(from, to, NULL, &blitter), "blitter");
	check(primeshare_blitter_blit(blitter, source, destination, NULL, &copy), "blit");
	/* An event loop would poll primeshare_copy_fd. */
	check(primeshare_copy_wait(copy, 60 * SECOND), "copy");
	check(primeshare_blitter_describe(blitter, source, destination, text, sizeof(text)), "describe");
	puts(text);
	write_png(destination, argv[3]);
	primeshare_copy_unref(copy);
	primeshare_blitter_unref_wait(blitter);
	primeshare_buffer_unref(source);
	primeshare_buffer_unref(destination);
	primeshare_device_unref(from);
	primeshare_device_unref(to);
	return 0;
}
