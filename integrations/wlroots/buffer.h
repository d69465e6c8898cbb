/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Buffers of the library as wlroots' buffers. */
#ifndef BUFFER_H
#define BUFFER_H

#include <primeshare.h>
#include <wlr/types/wlr_buffer.h>

/*
 * A buffer of the library, allocated on this device, that wlroots counts. Takes the reference of `buffer`, also if it
 * returns NULL.
 */
struct wlr_buffer *buffer_wrap(struct primeshare_buffer *buffer, const struct primeshare_device *device);

/*
 * The library's buffer of a buffer that buffer_wrap made, and its device: they live as long as that. NULL for all
 * others.
 */
const struct primeshare_buffer *buffer_unwrap(const struct wlr_buffer *buffer, const struct primeshare_device **device);

#endif
