/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * For compositors that were not changed: LD_PRELOAD=libprimeshare-wlroots-preload.so takes the place of functions of
 * wlroots 0.18, in the compositor and in wlroots itself. With PRIMESHARE_WLROOTS_LOG=1, wlroots logs all it can, which
 * not every compositor offers.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <wlr/backend/drm.h>
#include <wlr/render/allocator.h>
#include <wlr/types/wlr_output.h>
#include <wlr/util/log.h>

#include "export.h"
#include "next.h"
#include "primeshare-wlroots.h"

static void *next(const char *name) {
	void *function = dlsym(RTLD_NEXT, name);
	if (function == NULL) {
		wlr_log(WLR_ERROR, "primeshare: %s is missing: this is for programs with wlroots 0.18", name);
		abort();
	}
	return function;
}

/* POSIX lets dlsym's pointers be functions, and ISO C does not. */
#define NEXT(type, name) \
	static type function; \
	if (function == NULL) \
		*(void **)&function = next(name)

typedef bool (*state_function)(struct wlr_output *, const struct wlr_output_state *);

bool next_commit_state(struct wlr_output *output, const struct wlr_output_state *state) {
	NEXT(state_function, "wlr_output_commit_state");
	return function(output, state);
}

bool next_test_state(struct wlr_output *output, const struct wlr_output_state *state) {
	NEXT(state_function, "wlr_output_test_state");
	return function(output, state);
}

EXPORT struct wlr_allocator *wlr_allocator_autocreate(struct wlr_backend *backend, struct wlr_renderer *renderer) {
	struct wlr_allocator *allocator = primeshare_wlr_allocator_create(backend, renderer);
	if (allocator != NULL)
		return allocator;
	typedef struct wlr_allocator *(*autocreate)(struct wlr_backend *, struct wlr_renderer *);
	NEXT(autocreate, "wlr_allocator_autocreate");
	return function(backend, renderer);
}

EXPORT bool wlr_output_commit_state(struct wlr_output *output, const struct wlr_output_state *state) {
	return primeshare_wlr_output_commit_state(output, state);
}

EXPORT bool wlr_output_test_state(struct wlr_output *output, const struct wlr_output_state *state) {
	return primeshare_wlr_output_test_state(output, state);
}

/*
 * wlroots copies to the screens of other devices itself, by OpenGL, and leaves them dark if there is none. Without a
 * parent it hands their frames to the commit above.
 */
EXPORT struct wlr_backend *wlr_drm_backend_create(struct wlr_session *session, struct wlr_device *device,
		struct wlr_backend *parent) {
	(void)parent;
	typedef struct wlr_backend *(*create)(struct wlr_session *, struct wlr_device *, struct wlr_backend *);
	NEXT(create, "wlr_drm_backend_create");
	return function(session, device, NULL);
}

EXPORT void wlr_log_init(enum wlr_log_importance verbosity, wlr_log_func_t callback) {
	typedef void (*init)(enum wlr_log_importance, wlr_log_func_t);
	NEXT(init, "wlr_log_init");
	function(getenv("PRIMESHARE_WLROOTS_LOG") == NULL ? verbosity : WLR_DEBUG, callback);
}
