/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#ifndef PRIMESHARE_BLIT_H
#define PRIMESHARE_BLIT_H

#include "primeshare.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Copies between devices ------------------------------------------------------------------------------ */

/*
 * A blitter copies from buffers of one device to buffers of another, by whichever way works and is the fastest, and
 * falls back to the CPU. It finds out by trials of its own, beside the copies.
 */

/* Vulkan on the device's GPU where there is one, else the CPU. */
#define PRIMESHARE_GPU_AUTO 0

/* The CPU only. */
#define PRIMESHARE_GPU_NONE 1

/* Vulkan on the CPU (lavapipe): for tests. */
#define PRIMESHARE_GPU_SOFTWARE 2

/* The source's GPU writes into the destination only where nothing else works. */
#define PRIMESHARE_PUSH_LAST 0

/* Never: destinations are shown on a screen, and must stay where they are. */
#define PRIMESHARE_PUSH_NEVER 1

/* Whenever that is the fastest. */
#define PRIMESHARE_PUSH_FREELY 2

/* Sync files come from GPUs, not from Vulkan on the CPU. */
#define PRIMESHARE_SYNC_FILES_HARDWARE 0

/* From nobody: a copy's end is known when it has ended. */
#define PRIMESHARE_SYNC_FILES_NEVER 1

/* From all that have them: for tests. */
#define PRIMESHARE_SYNC_FILES_ALWAYS 2

/* How a blitter works. All zeros are what most programs want. */
struct primeshare_blitter_options {
  /* sizeof(struct primeshare_blitter_options) */
  size_t size;
  /* PRIMESHARE_GPU_* */
  uint32_t gpu;
  /* PRIMESHARE_PUSH_* */
  uint32_t push;
  /* PRIMESHARE_SYNC_FILES_* */
  uint32_t sync_files;
  /* Copies under way at a time, from 1 to 64; 0: three. */
  uint32_t in_flight;
  /* Names of strategies to choose from, with commas between them: "pull,staged-udmabuf,cpu". NULL: all. */
  const char *strategies;
};

/* A blitter for a pair of devices. All calls are thread-safe. */
struct primeshare_blitter;

/*
 * Makes a blitter that copies from buffers of `source` to buffers of `destination`. Loads Vulkan, which takes some
 * ten milliseconds and more. `options` may be NULL.
 */
int primeshare_blitter_create(const struct primeshare_device *source,
                              const struct primeshare_device *destination,
                              const struct primeshare_blitter_options *options,
                              struct primeshare_blitter **blitter);

/* Adds a reference, and returns the blitter. NULL is allowed. */
struct primeshare_blitter *primeshare_blitter_ref(const struct primeshare_blitter *blitter);

/*
 * Takes a reference back. With the last one, waits for the copies that are under way, at most ten seconds. NULL is
 * allowed.
 */
void primeshare_blitter_unref_wait(struct primeshare_blitter *blitter);

/* Pixels, from (x1, y1) up to and without (x2, y2). */
struct primeshare_box {
  /* First column. */
  int32_t x1;
  /* First row. */
  int32_t y1;
  /* First column that is not in it. */
  int32_t x2;
  /* First row that is not in it. */
  int32_t y2;
};

/* A part of a picture, in pixels. */
struct primeshare_rect {
  /* First column. */
  uint32_t x;
  /* First row. */
  uint32_t y;
  /* Columns. */
  uint32_t width;
  /* Rows. */
  uint32_t height;
};

/* By the nearest pixel. */
#define PRIMESHARE_FILTER_NEAREST 0

/* By linear interpolation. */
#define PRIMESHARE_FILTER_LINEAR 1

/* The weights of ITU-R BT.709. */
#define PRIMESHARE_MATRIX_BT709 0

/* The weights of ITU-R BT.601. */
#define PRIMESHARE_MATRIX_BT601 1

/* The weights of ITU-R BT.2020. */
#define PRIMESHARE_MATRIX_BT2020 2

/* Of 8 bits, 16 is black and 235 white; of more bits, these times a power of two. */
#define PRIMESHARE_RANGE_NARROW 0

/* 0 is black, and the largest number white. */
#define PRIMESHARE_RANGE_FULL 1

/* What belongs to a copy. All zeros: the whole picture, at once, as it is. */
struct primeshare_blit_info {
  /* sizeof(struct primeshare_blit_info) */
  size_t size;
  /* What has changed, in pixels of the source. NULL is everything; an array with no elements is nothing. */
  const struct primeshare_box *damage;
  /* How many. */
  size_t damage_count;
  /*
   * Fences (sync files, or other fds that become readable) that the copy waits for, beside those in the buffers. They
   * are borrowed.
   */
  const int *fences;
  /* How many. */
  size_t fence_count;
  /* Which part of the source is copied. Both rects of width 0: the pictures are of one size, and not turned. */
  struct primeshare_rect source;
  /* Where it goes. */
  struct primeshare_rect destination;
  /* How the part is turned: the values of wl_output.transform. */
  uint32_t transform;
  /* How it is scaled: a PRIMESHARE_FILTER. */
  uint32_t filter;
  /*
   * Copies of one stream are made in their order, and wait for no other's: a number of the program's own, below
   * 2^63, for example one for each client. 0: copies into the same buffer are made in their order.
   */
  uint64_t stream;
  /*
   * What the numbers of YCbCr formats mean, if one of the buffers has such a format and the other has not: a
   * PRIMESHARE_MATRIX.
   */
  uint32_t ycbcr_matrix;
  /* Black and white of it: a PRIMESHARE_RANGE. */
  uint32_t ycbcr_range;
};

/* A copy that was ordered. All calls are thread-safe. */
struct primeshare_copy;

/*
 * Orders a copy, and returns before it is made. It waits for the pending work in both buffers and for `info`'s
 * fences, and puts its own fence into both buffers. Until it has ended, the source must not be written and the
 * destination not be used. The library keeps both buffers as long as it needs them. `info` may be NULL.
 *
 * -EBUSY: as many copies are under way as the options allow.
 */
int primeshare_blitter_blit(const struct primeshare_blitter *blitter,
                            const struct primeshare_buffer *source,
                            const struct primeshare_buffer *destination,
                            const struct primeshare_blit_info *info,
                            struct primeshare_copy **copy);

/* Adds a reference, and returns the copy. NULL is allowed. */
struct primeshare_copy *primeshare_copy_ref(const struct primeshare_copy *copy);

/* Takes a reference back, which does not stop the copy. NULL is allowed. */
void primeshare_copy_unref(struct primeshare_copy *copy);

/*
 * An fd that becomes readable when the copy has ended, for an event loop: read nothing from it. It stays the copy's,
 * and is closed with its last reference.
 */
int primeshare_copy_fd(const struct primeshare_copy *copy);

/* Returns 1 if the copy has been made, 0 if it is under way, and a negative errno if it failed. Does not wait. */
int primeshare_copy_is_done(const struct primeshare_copy *copy);

/* Waits for the copy, at most so many nanoseconds; negative: without end. -ETIMEDOUT if it passes. */
int primeshare_copy_wait(const struct primeshare_copy *copy, int64_t timeout_ns);

/*
 * Writes a fence that is signalled when a GPU has made the copy: for IN_FENCE_FD, or another driver. -1 if the copy
 * has been made. -EOPNOTSUPP if no GPU has been given the copy: then wait at primeshare_copy_fd.
 */
int primeshare_copy_export_fence(const struct primeshare_copy *copy,
                                 int *sync_file);

/*
 * Waits until the blitter has tried all ways to copy between these buffers, at most so many nanoseconds. Not needed
 * for copies: for programs that measure or report.
 */
int primeshare_blitter_settle_wait(const struct primeshare_blitter *blitter,
                                   const struct primeshare_buffer *source,
                                   const struct primeshare_buffer *destination,
                                   int64_t timeout_ns);

/*
 * Writes which ways there are to copy between two buffers, which of them work, and why the others do not: text for
 * people, a line for each way. Returns its length without the zero at the end, as snprintf does: more than there is
 * room for means that it was cut. Asks no driver.
 */
int primeshare_blitter_describe(const struct primeshare_blitter *blitter,
                                const struct primeshare_buffer *source,
                                const struct primeshare_buffer *destination,
                                char *text,
                                size_t text_size);

#ifdef __cplusplus
}
#endif

#endif
