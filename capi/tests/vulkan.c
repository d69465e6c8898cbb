/* Buffers as images of a Vulkan device that the program made: lavapipe. */
#include "check.h"

#include <dlfcn.h>
#define VK_NO_PROTOTYPES
#include <vulkan/vulkan.h>

static PFN_vkGetInstanceProcAddr get_proc;
static VkInstance instance;
static VkPhysicalDevice physical;
static VkDevice device;
static VkQueue queue;

static const char *const EXTENSIONS[] = {
	VK_KHR_EXTERNAL_MEMORY_FD_EXTENSION_NAME,
	VK_EXT_EXTERNAL_MEMORY_DMA_BUF_EXTENSION_NAME,
	VK_EXT_IMAGE_DRM_FORMAT_MODIFIER_EXTENSION_NAME,
	VK_EXT_QUEUE_FAMILY_FOREIGN_EXTENSION_NAME,
	VK_KHR_IMAGE_FORMAT_LIST_EXTENSION_NAME,
};
#define EXTENSION_COUNT (sizeof(EXTENSIONS) / sizeof(EXTENSIONS[0]))

#define PROC(name) ((PFN_##name)get_proc(instance, #name))

static void open_vulkan(void) {
	void *loader = dlopen("libvulkan.so.1", RTLD_NOW);
	CHECK(loader != NULL);
	*(void **)&get_proc = dlsym(loader, "vkGetInstanceProcAddr");
	const VkApplicationInfo application = {
		.sType = VK_STRUCTURE_TYPE_APPLICATION_INFO, .apiVersion = VK_API_VERSION_1_2};
	const VkInstanceCreateInfo instance_info = {
		.sType = VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO, .pApplicationInfo = &application};
	CHECK(PROC(vkCreateInstance)(&instance_info, NULL, &instance) == VK_SUCCESS);
	uint32_t count = 1;
	CHECK(PROC(vkEnumeratePhysicalDevices)(instance, &count, &physical) >= 0 && count == 1);
	const float priority = 1;
	const VkDeviceQueueCreateInfo queue_info = {
		.sType = VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO, .queueCount = 1, .pQueuePriorities = &priority};
	const VkDeviceCreateInfo device_info = {.sType = VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO, .queueCreateInfoCount = 1,
		.pQueueCreateInfos = &queue_info, .enabledExtensionCount = EXTENSION_COUNT,
		.ppEnabledExtensionNames = EXTENSIONS};
	CHECK(PROC(vkCreateDevice)(physical, &device_info, NULL, &device) == VK_SUCCESS);
	PROC(vkGetDeviceQueue)(device, 0, 0, &queue);
}

static struct primeshare_vulkan_device *wrapped(void) {
	struct primeshare_vulkan_device *wrapped;
	void *proc;
	*(PFN_vkGetInstanceProcAddr *)&proc = get_proc;
	const struct primeshare_vulkan_device_info info = {.size = sizeof(info), .get_instance_proc_addr = proc,
		.instance = instance, .api_version = VK_API_VERSION_1_2, .physical_device = physical, .device = device,
		.extensions = EXTENSIONS, .extension_count = EXTENSION_COUNT};
	OK(primeshare_vulkan_device_wrap(&info, &wrapped));
	return wrapped;
}

/* Fills an image with one colour, between taking it over and giving it back. */
static void clear(const struct primeshare_vulkan_image *image, float red) {
	VkCommandPool pool;
	VkCommandBuffer commands;
	const VkCommandPoolCreateInfo pool_info = {.sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO};
	CHECK(PROC(vkCreateCommandPool)(device, &pool_info, NULL, &pool) == VK_SUCCESS);
	const VkCommandBufferAllocateInfo allocate = {
		.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO, .commandPool = pool, .commandBufferCount = 1};
	CHECK(PROC(vkAllocateCommandBuffers)(device, &allocate, &commands) == VK_SUCCESS);
	const VkCommandBufferBeginInfo begin = {.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO};
	CHECK(PROC(vkBeginCommandBuffer)(commands, &begin) == VK_SUCCESS);
	OK(primeshare_vulkan_image_acquire(image, commands, PRIMESHARE_VULKAN_DESTINATION));
	const VkClearColorValue color = {.float32 = {red, 0, 0, 1}};
	const VkImageSubresourceRange range = {.aspectMask = VK_IMAGE_ASPECT_COLOR_BIT, .levelCount = 1, .layerCount = 1};
	VkImageLayout layout = primeshare_vulkan_layout_of(PRIMESHARE_VULKAN_DESTINATION);
	CHECK(layout == VK_IMAGE_LAYOUT_TRANSFER_DST_OPTIMAL);
	PROC(vkCmdClearColorImage)(commands, (VkImage)(uintptr_t)primeshare_vulkan_image_handle(image), layout, &color, 1,
		&range);
	OK(primeshare_vulkan_image_release(image, commands, PRIMESHARE_VULKAN_DESTINATION));
	CHECK(PROC(vkEndCommandBuffer)(commands) == VK_SUCCESS);
	const VkSubmitInfo submit = {
		.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO, .commandBufferCount = 1, .pCommandBuffers = &commands};
	CHECK(PROC(vkQueueSubmit)(queue, 1, &submit, VK_NULL_HANDLE) == VK_SUCCESS);
	CHECK(PROC(vkQueueWaitIdle)(queue) == VK_SUCCESS);
	PROC(vkDestroyCommandPool)(device, pool, NULL);
}

static void an_image_is_the_buffers_memory(void) {
	struct primeshare_device *vgem = device_of("vgem", 0);
	struct primeshare_vulkan_device *vulkan = wrapped();
	struct primeshare_buffer *buffer = dumb(vgem, 64, 64);
	struct primeshare_vulkan_image *image, *again;
	struct primeshare_mapping *mapping;
	struct primeshare_mapped_plane plane;
	OK(primeshare_vulkan_device_get_image(vulkan, buffer, PRIMESHARE_VULKAN_DESTINATION, &image));
	OK(primeshare_vulkan_device_get_image(vulkan, buffer, PRIMESHARE_VULKAN_DESTINATION, &again));
	CHECK(image == again && primeshare_vulkan_image_handle(image) != 0);
	CHECK(primeshare_vulkan_image_format(image) == VK_FORMAT_B8G8R8A8_UNORM);
	clear(image, 1);
	OK(primeshare_mapping_create(buffer, true, &mapping));
	OK(primeshare_mapping_begin_wait(mapping, PRIMESHARE_ACCESS_READ, PATIENCE_NS));
	OK(primeshare_mapping_get_plane(mapping, 0, &plane));
	const uint32_t *last = (const uint32_t *)((const char *)plane.data + 63 * plane.stride) + 63;
	CHECK((*last & 0xffffff) == 0xff0000);
	primeshare_mapping_destroy(mapping);
	primeshare_vulkan_image_unref(primeshare_vulkan_image_ref(image));
	primeshare_vulkan_image_unref(image);
	primeshare_vulkan_image_unref(again);
	primeshare_vulkan_device_unref(primeshare_vulkan_device_ref(vulkan));
	primeshare_vulkan_device_unref(vulkan);
	primeshare_buffer_unref(buffer);
	primeshare_device_unref(vgem);
}

static void what_the_device_can_do_is_an_endpoint(void) {
	struct primeshare_vulkan_device *vulkan = wrapped();
	struct primeshare_endpoint *endpoint, *allocator;
	struct primeshare_agreement *agreement;
	const struct primeshare_format linear[] = {{XRGB8888, LINEAR}};
	OK(primeshare_vulkan_device_get_endpoint(vulkan, PRIMESHARE_USAGE_SAMPLE, &endpoint));
	OK(primeshare_endpoint_create("allocator", NULL, 0, &allocator));
	OK(primeshare_endpoint_add(allocator, linear, 1, true));
	const struct primeshare_endpoint *both[] = {allocator, endpoint};
	OK(primeshare_negotiate(both, 2, 64, 64, NULL, 0, PRIMESHARE_SUBSTITUTE_NEVER, &agreement));
	primeshare_agreement_destroy(agreement);
	primeshare_endpoint_destroy(allocator);
	primeshare_endpoint_destroy(endpoint);
	primeshare_vulkan_device_unref(vulkan);
}

static void what_is_missing_or_wrong_is_said(void) {
	struct primeshare_device *vgem = device_of("vgem", 0);
	struct primeshare_buffer *buffer = dumb(vgem, 64, 64);
	struct primeshare_vulkan_device *vulkan = wrapped(), *none = NULL;
	struct primeshare_vulkan_image *image = NULL;
	struct primeshare_vulkan_device_info info = {.size = sizeof(info)};
	FAILS(primeshare_vulkan_device_wrap(&info, &none), EINVAL);
	CHECK(strstr(primeshare_last_error_message(), "get_instance_proc_addr") != NULL && none == NULL);
	FAILS(primeshare_vulkan_device_get_image(vulkan, buffer, 1u << 12, &image), EINVAL);
	OK(primeshare_vulkan_device_get_image(vulkan, buffer, PRIMESHARE_VULKAN_SOURCE, &image));
	FAILS(primeshare_vulkan_image_acquire(image, NULL, PRIMESHARE_VULKAN_SOURCE), EINVAL);
	VkCommandBuffer never = (VkCommandBuffer)&info;
	FAILS(primeshare_vulkan_image_release(image, never, PRIMESHARE_VULKAN_SOURCE | PRIMESHARE_VULKAN_SAMPLED), EINVAL);
	CHECK(primeshare_vulkan_layout_of(0) == VK_IMAGE_LAYOUT_UNDEFINED);
	primeshare_vulkan_image_unref(image);
	primeshare_vulkan_device_unref(vulkan);
	primeshare_buffer_unref(buffer);
	primeshare_device_unref(vgem);
}

int main(void) {
	open_vulkan();
	RUN(an_image_is_the_buffers_memory);
	RUN(what_the_device_can_do_is_an_endpoint);
	RUN(what_is_missing_or_wrong_is_said);
	PROC(vkDestroyDevice)(device, NULL);
	PROC(vkDestroyInstance)(instance, NULL);
}
