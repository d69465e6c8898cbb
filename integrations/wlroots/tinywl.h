/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * All that tinywl, wlroots' example of a compositor, needs to have this library's buffers and copies: its source is
 * compiled with this file before it (-include), and calls these functions instead of wlroots' own. A compositor that is
 * changed for good calls them by their names.
 */
#ifndef PRIMESHARE_TINYWL_H
#define PRIMESHARE_TINYWL_H

#include <wlr/render/allocator.h>
#include <wlr/types/wlr_output.h>
#include <wlr/types/wlr_scene.h>

#include "primeshare-wlroots.h"

/* As wlr_scene_output_commit, which commits inside of wlroots. */
static inline bool commit_scene(struct wlr_scene_output *scene, const struct wlr_scene_output_state_options *options) {
	struct wlr_output_state state;
	if (!scene->output->needs_frame && !pixman_region32_not_empty(&scene->pending_commit_damage))
		return true;
	wlr_output_state_init(&state);
	bool done = wlr_scene_output_build_state(scene, &state, options) &&
		primeshare_wlr_output_commit_state(scene->output, &state);
	wlr_output_state_finish(&state);
	return done;
}

#define wlr_allocator_autocreate primeshare_wlr_allocator_create
#define wlr_output_commit_state primeshare_wlr_output_commit_state
#define wlr_scene_output_commit commit_scene

#endif
