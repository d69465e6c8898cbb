/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#ifndef PRIMESHARE_VULKAN_H
#define PRIMESHARE_VULKAN_H

#include "primeshare.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Vulkan ---------------------------------------------------------------------------------------------- */

/*
 * Buffers as images of the program's own Vulkan device. Handles have Vulkan's types as they are in memory: dispatchable
 * ones (VkInstance, VkDevice, VkCommandBuffer) are pointers, and the others (VkImage) are 64-bit numbers.
 */

/* The image is copied from. */
#define PRIMESHARE_VULKAN_SOURCE 1

/* It is copied into. */
#define PRIMESHARE_VULKAN_DESTINATION 2

/* It is sampled. */
#define PRIMESHARE_VULKAN_SAMPLED 4

/* It is rendered into. */
#define PRIMESHARE_VULKAN_ATTACHMENT 8

/* It is read and written by shaders. */
#define PRIMESHARE_VULKAN_STORAGE 16

/* A device that the program made. */
struct primeshare_vulkan_device_info {
  /* sizeof(struct primeshare_vulkan_device_info) */
  size_t size;
  /* vkGetInstanceProcAddr */
  const void *get_instance_proc_addr;
  /* VkInstance */
  void *instance;
  /* VkApplicationInfo::apiVersion of the instance: at least Vulkan 1.1. */
  uint32_t api_version;
  /* The family of the queue that works with shared images. */
  uint32_t queue_family;
  /* VkPhysicalDevice */
  void *physical_device;
  /* VkDevice */
  void *device;
  /* The extensions that the device was created with. */
  const char *const *extensions;
  /* How many. */
  size_t extension_count;
  /* 1 if it was created with the feature samplerYcbcrConversion. */
  uint32_t ycbcr;
  /* 1 if it was created with the feature timelineSemaphore. */
  uint32_t timeline;
};

/* A Vulkan device of the program's. All calls are thread-safe. */
struct primeshare_vulkan_device;

/*
 * Takes part in a device of the program's, which must live longer than this and all images that are made with it. What
 * the device was not created with is an error of the functions that need it: images need
 * VK_EXT_external_memory_dma_buf, VK_KHR_external_memory_fd, VK_EXT_image_drm_format_modifier and
 * VK_EXT_queue_family_foreign.
 */
int primeshare_vulkan_device_wrap(const struct primeshare_vulkan_device_info *info,
                                  struct primeshare_vulkan_device **device);

/* Adds a reference, and returns the device. NULL is allowed. */
struct primeshare_vulkan_device *primeshare_vulkan_device_ref(const struct primeshare_vulkan_device *device);

/* Takes a reference back. NULL is allowed. */
void primeshare_vulkan_device_unref(struct primeshare_vulkan_device *device);

/* What the device can do with buffers for a usage (PRIMESHARE_USAGE_*), for primeshare_negotiate. */
int primeshare_vulkan_device_get_endpoint(const struct primeshare_vulkan_device *device,
                                          uint32_t usage_bits,
                                          struct primeshare_endpoint **endpoint);

/* A buffer as an image of a Vulkan device. All calls are thread-safe. */
struct primeshare_vulkan_image;

/*
 * The image of a buffer for these uses (PRIMESHARE_VULKAN_*, added). Imported with the first call, and a lookup as long
 * as the program has it; a refusal is remembered with the buffer. An image must be kept until the GPU has done the
 * work that uses it.
 */
int primeshare_vulkan_device_get_image(const struct primeshare_vulkan_device *device,
                                       const struct primeshare_buffer *buffer,
                                       uint32_t uses,
                                       struct primeshare_vulkan_image **image);

/* Adds a reference, and returns the image. NULL is allowed. */
struct primeshare_vulkan_image *primeshare_vulkan_image_ref(const struct primeshare_vulkan_image *image);

/* Takes a reference back. The VkImage is destroyed with the last one. NULL is allowed. */
void primeshare_vulkan_image_unref(struct primeshare_vulkan_image *image);

/* The VkImage; 0, VK_NULL_HANDLE, if `image` is NULL. */
uint64_t primeshare_vulkan_image_handle(const struct primeshare_vulkan_image *image);

/* Its VkFormat; 0, VK_FORMAT_UNDEFINED, if `image` is NULL. */
int32_t primeshare_vulkan_image_format(const struct primeshare_vulkan_image *image);

/* The VkImageLayout in which an image is used so: that of an acquired image, and of one that is to be released. */
int32_t primeshare_vulkan_layout_of(uint32_t use_bit);

/*
 * Records what makes an image the queue family's own, after others have worked on its buffer: a barrier from
 * VK_QUEUE_FAMILY_FOREIGN_EXT into the layout of one use. `command_buffer` is a VkCommandBuffer in the recording state,
 * outside of a render pass. The submission must wait for the buffer's fences.
 */
int primeshare_vulkan_image_acquire(const struct primeshare_vulkan_image *image,
                                    void *command_buffer,
                                    uint32_t use_bit);

/* Records what gives an image back to others, after one use: the barrier to VK_QUEUE_FAMILY_FOREIGN_EXT. */
int primeshare_vulkan_image_release(const struct primeshare_vulkan_image *image,
                                    void *command_buffer,
                                    uint32_t use_bit);

#ifdef __cplusplus
}
#endif

#endif
