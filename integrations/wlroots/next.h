/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* wlroots' own functions, also where this library's have taken their names (preload.c). */
#ifndef NEXT_H
#define NEXT_H

#include <stdbool.h>

struct wlr_output;
struct wlr_output_state;

bool next_commit_state(struct wlr_output *output, const struct wlr_output_state *state);
bool next_test_state(struct wlr_output *output, const struct wlr_output_state *state);

#endif
