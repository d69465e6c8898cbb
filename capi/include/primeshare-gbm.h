/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#ifndef PRIMESHARE_GBM_H
#define PRIMESHARE_GBM_H

#include "primeshare.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Allocation by Mesa's gbm ---------------------------------------------------------------------------- */

/* Allocates by gbm on a device, on a file description of gbm's own: tiled memory of the GPU, and memory for screens. */
int primeshare_allocator_create_gbm(const struct primeshare_device *device,
                                    struct primeshare_allocator **allocator);

#ifdef __cplusplus
}
#endif

#endif
