/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Commits that copy a buffer to the screen's device if the screen refuses it. */
#include "primeshare-wlroots.h"

#include <drm_fourcc.h>
#include <primeshare-blit.h>
#include <stdlib.h>
#include <wlr/backend.h>
#include <wlr/interfaces/wlr_output.h>
#include <wlr/render/drm_format_set.h>
#include <wlr/types/wlr_output.h>
#include <wlr/util/addon.h>
#include <wlr/util/log.h>

#include "buffer.h"
#include "export.h"
#include "next.h"

/* One is shown, one is about to be, one is written. */
#define RING_SIZE 3
/* How long a frame's copy may take. */
#define PATIENCE_NS (1000 * 1000 * 1000LL)

/* What an output needs to show copies. */
struct screen {
	struct wlr_addon addon;
	struct primeshare_device *device;
	struct primeshare_allocator *allocator;
	/* Copies from the device of `source`; NULL until it is needed. */
	struct primeshare_blitter *blitter;
	struct primeshare_device *source;
	struct wlr_buffer *ring[RING_SIZE];
	struct wl_list verdicts; /* verdict.link */
};

/* What a screen said of a buffer. It goes with either. */
struct verdict {
	struct wlr_addon addon;
	struct wl_list link;
	bool is_taken;
};

static void verdict_destroy(struct wlr_addon *addon) {
	struct verdict *verdict = wl_container_of(addon, verdict, addon);
	wlr_addon_finish(addon);
	wl_list_remove(&verdict->link);
	free(verdict);
}

static const struct wlr_addon_interface verdict_impl = {
	.name = "primeshare-verdict",
	.destroy = verdict_destroy,
};

static void forget_verdicts(struct screen *screen) {
	struct verdict *verdict, *other;
	wl_list_for_each_safe(verdict, other, &screen->verdicts, link)
		verdict_destroy(&verdict->addon);
}

static void screen_destroy(struct screen *screen) {
	forget_verdicts(screen);
	for (size_t i = 0; i < RING_SIZE; i++)
		wlr_buffer_drop(screen->ring[i]);
	primeshare_blitter_unref_wait(screen->blitter);
	primeshare_allocator_unref(screen->allocator);
	primeshare_device_unref(screen->source);
	primeshare_device_unref(screen->device);
	free(screen);
}

static void addon_destroy(struct wlr_addon *addon) {
	struct screen *screen = wl_container_of(addon, screen, addon);
	wlr_addon_finish(addon);
	screen_destroy(screen);
}

static const struct wlr_addon_interface addon_impl = {
	.name = "primeshare",
	.destroy = addon_destroy,
};

/* NULL if the output is on no DRM device. */
static struct screen *screen_of(struct wlr_output *output) {
	struct wlr_addon *addon = wlr_addon_find(&output->addons, &addon_impl, &addon_impl);
	struct screen *screen;
	if (addon != NULL)
		return wl_container_of(addon, screen, addon);
	int fd = wlr_backend_get_drm_fd(output->backend);
	screen = fd < 0 ? NULL : calloc(1, sizeof(*screen));
	if (screen == NULL)
		return NULL;
	wl_list_init(&screen->verdicts);
	if (primeshare_device_private_copy_of(fd, &screen->device) != 0 ||
			primeshare_allocator_create_dumb(screen->device, &screen->allocator) != 0) {
		wlr_log(WLR_ERROR, "%s: %s", output->name, primeshare_last_error_message());
		screen_destroy(screen);
		return NULL;
	}
	wlr_addon_init(&screen->addon, &output->addons, &addon_impl, &addon_impl);
	return screen;
}

/* A buffer of the ring that nobody uses, locked for the caller. */
static struct wlr_buffer *acquire(struct screen *screen, struct wlr_output *output, int width, int height) {
	/* Drivers without modifiers are shown buffers without one, and wlroots does not let LINEAR pass for that. */
	const struct wlr_drm_format_set *formats = wlr_output_get_primary_formats(output, WLR_BUFFER_CAP_DMABUF);
	const struct wlr_drm_format *format = formats ? wlr_drm_format_set_get(formats, DRM_FORMAT_XRGB8888) : NULL;
	if (format == NULL)
		return NULL;
	struct primeshare_request request = {
		.size = sizeof(request),
		.width = width,
		.height = height,
		.format = format->format,
		.usage = PRIMESHARE_USAGE_SCANOUT | PRIMESHARE_USAGE_COPY_TO,
		.modifiers = format->modifiers,
		.modifier_count = format->len,
	};
	for (size_t i = 0; i < RING_SIZE; i++) {
		struct wlr_buffer **place = &screen->ring[i];
		if (*place != NULL && (*place)->n_locks > 0)
			continue;
		if (*place != NULL && ((*place)->width != width || (*place)->height != height)) {
			wlr_buffer_drop(*place);
			*place = NULL;
		}
		struct primeshare_buffer *buffer;
		if (*place == NULL && primeshare_allocator_allocate(screen->allocator, &request, &buffer) == 0)
			*place = buffer_wrap(buffer, screen->device);
		return *place == NULL ? NULL : wlr_buffer_lock(*place);
	}
	return NULL;
}

static bool make_blitter(struct screen *screen, const struct primeshare_device *source) {
	if (screen->source == source)
		return true;
	struct primeshare_blitter_options options = {
		.size = sizeof(options),
		/* The screen's buffers have to stay where the screen can show them. */
		.push = PRIMESHARE_PUSH_NEVER,
	};
	struct primeshare_blitter *blitter;
	if (primeshare_blitter_create(source, screen->device, &options, &blitter) != 0)
		return false;
	primeshare_blitter_unref_wait(screen->blitter);
	primeshare_device_unref(screen->source);
	screen->blitter = blitter;
	screen->source = primeshare_device_ref(source);
	return true;
}

static bool copy(struct screen *screen, const struct wlr_buffer *from, const struct wlr_buffer *to) {
	const struct primeshare_device *source_device, *own_device;
	const struct primeshare_buffer *source = buffer_unwrap(from, &source_device);
	const struct primeshare_buffer *destination = buffer_unwrap(to, &own_device);
	struct primeshare_copy *copy = NULL;
	bool done = make_blitter(screen, source_device) &&
		primeshare_blitter_blit(screen->blitter, source, destination, NULL, &copy) == 0 &&
		primeshare_copy_wait(copy, PATIENCE_NS) == 0;
	if (!done)
		wlr_log(WLR_ERROR, "%s", primeshare_last_error_message());
	primeshare_copy_unref(copy);
	return done;
}

/* Whether the screen takes the state's buffer itself. Asked once for each buffer and mode. */
static bool takes(struct screen *screen, struct wlr_output *output, const struct wlr_output_state *state) {
	if (state->committed & (WLR_OUTPUT_STATE_MODE | WLR_OUTPUT_STATE_ENABLED))
		forget_verdicts(screen);
	struct wlr_addon *addon = wlr_addon_find(&state->buffer->addons, screen, &verdict_impl);
	struct verdict *verdict;
	if (addon != NULL) {
		verdict = wl_container_of(addon, verdict, addon);
		return verdict->is_taken;
	}
	bool is_taken = next_test_state(output, state);
	verdict = calloc(1, sizeof(*verdict));
	if (verdict != NULL) {
		verdict->is_taken = is_taken;
		wlr_addon_init(&verdict->addon, &state->buffer->addons, screen, &verdict_impl);
		wl_list_insert(&screen->verdicts, &verdict->link);
	}
	if (!is_taken)
		wlr_log(WLR_INFO, "primeshare: %s shows copies: it refuses the buffer", output->name);
	return is_taken;
}

/* The state with another buffer. */
static bool apply_with(struct wlr_output *output, const struct wlr_output_state *state, struct wlr_buffer *buffer,
		bool is_test) {
	struct wlr_output_state other = *state;
	other.committed |= WLR_OUTPUT_STATE_BUFFER;
	other.buffer = buffer;
	return is_test ? next_test_state(output, &other) : next_commit_state(output, &other);
}

/* The state with a copy of its buffer, or with an empty one if it is only tested. */
static bool apply_copy(struct screen *screen, struct wlr_output *output, const struct wlr_output_state *state,
		bool is_test) {
	struct wlr_buffer *buffer = acquire(screen, output, state->buffer->width, state->buffer->height);
	if (buffer == NULL)
		return false;
	bool done = (is_test || copy(screen, state->buffer, buffer)) && apply_with(output, state, buffer, is_test);
	wlr_buffer_unlock(buffer);
	return done;
}

/*
 * For a change of modes without a buffer, wlroots takes an empty one of the compositor's allocator, inside of its own
 * commit. If the screen refuses that, it gets an empty one of its own device.
 */
static bool apply_empty(struct wlr_output *output, const struct wlr_output_state *state, bool is_test) {
	bool changes_mode = state->committed & (WLR_OUTPUT_STATE_MODE | WLR_OUTPUT_STATE_ENABLED);
	bool enables = state->committed & WLR_OUTPUT_STATE_ENABLED ? state->enabled : output->enabled;
	struct screen *screen = changes_mode && enables ? screen_of(output) : NULL;
	if (screen == NULL)
		return false;
	int width = output->width, height = output->height;
	if ((state->committed & WLR_OUTPUT_STATE_MODE) && state->mode_type == WLR_OUTPUT_STATE_MODE_FIXED) {
		width = state->mode->width;
		height = state->mode->height;
	} else if (state->committed & WLR_OUTPUT_STATE_MODE) {
		width = state->custom_mode.width;
		height = state->custom_mode.height;
	}
	struct wlr_buffer *buffer = acquire(screen, output, width, height);
	bool done = buffer != NULL && apply_with(output, state, buffer, is_test);
	if (buffer != NULL)
		wlr_buffer_unlock(buffer);
	return done;
}

static bool apply(struct wlr_output *output, const struct wlr_output_state *state, bool is_test) {
	bool has_buffer = (state->committed & WLR_OUTPUT_STATE_BUFFER) && state->buffer != NULL;
	/* A client's buffer that is refused is no loss: the compositor then draws it into one of its own. */
	const struct primeshare_device *device;
	bool is_own = has_buffer && buffer_unwrap(state->buffer, &device) != NULL;
	struct screen *screen = is_own ? screen_of(output) : NULL;
	if (screen != NULL && !takes(screen, output, state))
		return apply_copy(screen, output, state, is_test);
	bool done = is_test ? next_test_state(output, state) : next_commit_state(output, state);
	return done || (!has_buffer && apply_empty(output, state, is_test));
}

EXPORT bool primeshare_wlr_output_commit_state(struct wlr_output *output, const struct wlr_output_state *state) {
	return apply(output, state, false);
}

EXPORT bool primeshare_wlr_output_test_state(struct wlr_output *output, const struct wlr_output_state *state) {
	return apply(output, state, true);
}
