/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#ifndef EXPORT_H
#define EXPORT_H

/* What programs call; everything else stays in the library. */
#define EXPORT __attribute__((visibility("default")))

#endif
