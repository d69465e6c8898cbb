/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#ifndef PRIMESHARE_KMS_H
#define PRIMESHARE_KMS_H

#include "primeshare.h"
#include "primeshare-blit.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Screens --------------------------------------------------------------------------------------------- */

/*
 * The program keeps the DRM master's fd, the modes and the policy.
 */

/* The framebuffers of a device: one for each buffer, kept until the buffer goes. All calls are thread-safe. */
struct primeshare_framebuffers;

/*
 * Keeps the framebuffers of a device. For a program that commits by itself: with
 * primeshare_device_private_copy_of(its fd) for `device`, framebuffers live on a file description of the library's own,
 * and the program's commits show them.
 */
int primeshare_framebuffers_create(const struct primeshare_device *device,
                                   struct primeshare_framebuffers **framebuffers);

/* Adds a reference, and returns the framebuffers. NULL is allowed. */
struct primeshare_framebuffers *primeshare_framebuffers_ref(const struct primeshare_framebuffers *framebuffers);

/* Takes a reference back. NULL is allowed. */
void primeshare_framebuffers_unref(struct primeshare_framebuffers *framebuffers);

/* A framebuffer: its id is the kernel's, valid on its device alone, as long as the framebuffer lives. */
struct primeshare_framebuffer;

/*
 * The framebuffer of a buffer. Made with the first call (ADDFB2, after checks of its own), and a lookup from then on;
 * a refusal is remembered, too. A framebuffer on a screen must be kept until it is not shown any more.
 *
 * `format`: 0, or a format of the same bytes to show the buffer as, such as DRM_FORMAT_XRGB8888 for
 * DRM_FORMAT_ARGB8888.
 */
int primeshare_framebuffers_get(const struct primeshare_framebuffers *framebuffers,
                                const struct primeshare_buffer *buffer,
                                uint32_t format,
                                struct primeshare_framebuffer **framebuffer);

/* Adds a reference, and returns the framebuffer. NULL is allowed. */
struct primeshare_framebuffer *primeshare_framebuffer_ref(const struct primeshare_framebuffer *framebuffer);

/* Takes a reference back. The framebuffer is closed when its buffer has gone as well. NULL is allowed. */
void primeshare_framebuffer_unref(struct primeshare_framebuffer *framebuffer);

/* The kernel's id; 0, which is none, if `framebuffer` is NULL. */
uint32_t primeshare_framebuffer_id(const struct primeshare_framebuffer *framebuffer);

/* A device that has screens, by the program's fd, which is or will be DRM master. All calls are thread-safe. */
struct primeshare_card;

/*
 * Works with the screens of the device that the program has open as `drm_fd`. Borrows the fd and keeps a dup. Sets the
 * client capabilities UNIVERSAL_PLANES and ATOMIC on the program's file description. Framebuffers are made on
 * another one.
 */
int primeshare_card_create(int drm_fd,
                           struct primeshare_card **card);

/* Adds a reference, and returns the card. NULL is allowed. */
struct primeshare_card *primeshare_card_ref(const struct primeshare_card *card);

/* Takes a reference back. NULL is allowed. */
void primeshare_card_unref(struct primeshare_card *card);

/* The library's own file description of the card's device: to allocate on, and to import into. */
int primeshare_card_get_device(const struct primeshare_card *card, struct primeshare_device **device);

/* A frame that is on a screen now. */
struct primeshare_page_flip {
  /* The CRTC of the screen. */
  uint32_t crtc;
  /* The number of the vertical blank since when it is shown. */
  uint32_t sequence;
  /* When that was, in nanoseconds of CLOCK_MONOTONIC. */
  uint64_t time_ns;
};

/* The most page flips that primeshare_card_read_page_flips writes. */
#define PRIMESHARE_MAX_PAGE_FLIPS 32

/*
 * Reads the page flips that have happened from the program's fd, and returns how many there were. Does not wait. To be
 * called when that fd is readable; give each to the presenter of its CRTC. A program that reads the events of its
 * fd by itself (drmHandleEvent) does not call this, and gives its own to primeshare_presenter_page_flip.
 *
 * `flips` has room for PRIMESHARE_MAX_PAGE_FLIPS.
 */
int primeshare_card_read_page_flips(const struct primeshare_card *card,
                                    struct primeshare_page_flip *flips);

/* How frames are shown. */
struct primeshare_presenter_options {
  /* sizeof(struct primeshare_presenter_options) */
  size_t size;
  /* The number of the connector; 0: the first that has a screen. */
  uint32_t connector;
  /* The number of the CRTC; 0: the one that feeds the connector, else one that feeds nothing. */
  uint32_t crtc;
  /* The mode, by its size; 0: the one that the screen prefers. */
  uint32_t width;
  /* See `width`. */
  uint32_t height;
  /* Buffers for frames that are copied, at least 2; 0: 3. They are allocated when they are needed. */
  uint32_t buffers;
  /* How frames are copied; NULL: as the default of a blitter. */
  const struct primeshare_blitter_options *blitter;
};

/*
 * Shows frames of one device on a screen of another, or of the same: as they are where the screen takes them, else
 * copied. It belongs to one thread at a time.
 */
struct primeshare_presenter;

/* Shows frames of `source` on a screen of `card`. The screen changes with the first frame. `options` may be NULL. */
int primeshare_presenter_create(const struct primeshare_card *card,
                                const struct primeshare_device *source,
                                const struct primeshare_presenter_options *options,
                                struct primeshare_presenter **presenter);

/* Stops, and brings back what the screen showed before the first frame, or turns it off. Waits for copies that are under way, at most ten seconds. NULL is allowed. */
void primeshare_presenter_destroy_wait(struct primeshare_presenter *presenter);

/* Writes the screen's size in pixels, and its CRTC; each may be NULL. */
int primeshare_presenter_get_mode(const struct primeshare_presenter *presenter,
                                  uint32_t *width,
                                  uint32_t *height,
                                  uint32_t *crtc);

/* What belongs to a frame. All zeros: all of it, at once. */
struct primeshare_present_info {
  /* sizeof(struct primeshare_present_info) */
  size_t size;
  /*
   * What differs from the frame before, in pixels of this one. NULL is everything; an array with no elements is
   * nothing.
   */
  const struct primeshare_box *damage;
  /* How many. */
  size_t damage_count;
  /* Fences (sync files, or one other fd that becomes readable) after which the frame is shown. They are borrowed. */
  const int *fences;
  /* How many. */
  size_t fence_count;
  /*
   * If the fences, or the copy that the frame needs, take longer than so many nanoseconds from now, the frame is left
   * out; 0: however long.
   */
  uint64_t timeout_ns;
  /* 1: it need not wait for the vertical blank, and may tear. */
  uint32_t tearing;
};

/*
 * Shows a frame as soon as it can be: after its fences and the frame before. Does not wait. `frame`, which may be
 * NULL, is its number in events. The buffer must not be drawn into until the next frame is shown; the library keeps
 * it as long as it needs it. `info` may be NULL.
 *
 * -EBUSY: a frame waits already; try again after the next event. -EACCES: the program is not the DRM master.
 */
int primeshare_presenter_present(struct primeshare_presenter *presenter,
                                 const struct primeshare_buffer *buffer,
                                 const struct primeshare_present_info *info,
                                 uint64_t *frame);

/* An fd for an event loop: when it is readable, call primeshare_presenter_dispatch. It stays the presenter's. */
int primeshare_presenter_fd(const struct primeshare_presenter *presenter);

/*
 * Tells the presenter that a frame is on the screen. Returns 1 if the page flip is of its screen, 0 if it is not. Call
 * primeshare_presenter_dispatch afterwards.
 */
int primeshare_presenter_page_flip(struct primeshare_presenter *presenter,
                                   const struct primeshare_page_flip *flip);

/* What became of a frame. */
struct primeshare_present_event {
  /* The number that primeshare_presenter_present gave it. */
  uint64_t frame;
  /*
   * Since when it is on the screen, in nanoseconds of CLOCK_MONOTONIC; 0 if that is not known, as for the frame that
   * turns some screens on, and if the frame was left out.
   */
  uint64_t time_ns;
  /* 0 if it is on the screen; why it was left out, a negative errno: -ETIMEDOUT if its fences took too long. */
  int32_t error;
  /* 1 if the screen reads the frame's own buffer, 0 if it was copied. */
  int32_t is_direct;
};

/*
 * Goes on with frames that wait, and writes what became of frames: as many events as there is room for, the others
 * with the next call. Returns how many. To be called when primeshare_presenter_fd is readable, and after page flips.
 */
int primeshare_presenter_dispatch(struct primeshare_presenter *presenter,
                                  struct primeshare_present_event *events,
                                  size_t capacity);

/*
 * Writes how a buffer gets on the screen, and why it is copied if it is: text for people. Returns its length without
 * the zero at the end, as snprintf does.
 */
int primeshare_presenter_describe(struct primeshare_presenter *presenter,
                                  const struct primeshare_buffer *buffer,
                                  char *text,
                                  size_t text_size);

/*
 * The program is DRM master again, after it was not: frames that were on their way are left out, and the next frame
 * sets the whole screen.
 */
int primeshare_presenter_reset(struct primeshare_presenter *presenter);

#ifdef __cplusplus
}
#endif

#endif
