/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * primeshare for compositors that use wlroots 0.18.
 *
 * An allocator whose buffers any device can import, and commits that copy a buffer to the screen's device if the screen
 * refuses it. Call them from the thread of the compositor's event loop.
 */
#ifndef PRIMESHARE_WLROOTS_H
#define PRIMESHARE_WLROOTS_H

#include <stdbool.h>

struct wlr_allocator;
struct wlr_backend;
struct wlr_buffer;
struct wlr_output;
struct wlr_output_state;
struct wlr_renderer;

/*
 * As wlr_allocator_autocreate: buffers of the backend's DRM device, by gbm if the renderer is a GPU's, else dumb
 * buffers. NULL if the backend has no DRM device or nothing can be allocated.
 */
struct wlr_allocator *primeshare_wlr_allocator_create(struct wlr_backend *backend, struct wlr_renderer *renderer);

/* As wlr_output_commit_state. If the screen refuses the state's buffer, a copy of it is shown. */
bool primeshare_wlr_output_commit_state(struct wlr_output *output, const struct wlr_output_state *state);

/* As wlr_output_test_state: true also if the screen would show a copy. */
bool primeshare_wlr_output_test_state(struct wlr_output *output, const struct wlr_output_state *state);

#endif
