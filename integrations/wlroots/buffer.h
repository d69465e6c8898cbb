/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Buffers of the library as wlroots' buffers. */
#ifndef BUFFER_H
#define BUFFER_H

#include <primeshare.h>
#include <wlr/types/wlr_buffer.h>

/* A buffer of the library that wlroots counts. Takes the reference of `buffer`, also if it returns NULL. */
struct wlr_buffer *buffer_wrap(struct primeshare_buffer *buffer);

/* The library's buffer of wlroots' buffer, with a reference: of one that buffer_wrap made, or of any dma-buf. */
struct primeshare_buffer *buffer_unwrap(struct wlr_buffer *buffer);

#endif
