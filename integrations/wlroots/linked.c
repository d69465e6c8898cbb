/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* For compositors that call this library's functions themselves. */
#include <wlr/types/wlr_output.h>

#include "next.h"

bool next_commit_state(struct wlr_output *output, const struct wlr_output_state *state) {
	return wlr_output_commit_state(output, state);
}

bool next_test_state(struct wlr_output *output, const struct wlr_output_state *state) {
	return wlr_output_test_state(output, state);
}
