/* Which formats are shared, and what a Wayland server tells its clients. */
#include "check.h"

static struct primeshare_endpoint *endpoint(const char *name, const struct primeshare_device *device, uint32_t usage,
		const struct primeshare_format *formats, size_t count, bool allocates) {
	struct primeshare_endpoint *made;
	OK(primeshare_endpoint_create(name, device, usage, &made));
	OK(primeshare_endpoint_add(made, formats, count, allocates));
	return made;
}

static void the_shared_modifier_is_chosen_and_who_allocates(void) {
	struct primeshare_device *gpu = device_of("vgem", 0), *display = device_of("vkms", 0);
	const struct primeshare_format tiled[] = {{XRGB8888, 0x0200000000000001ull}, {XRGB8888, LINEAR}, {ARGB8888, LINEAR}};
	const struct primeshare_format plain[] = {{XRGB8888, LINEAR}};
	struct primeshare_endpoint *renderer = endpoint("gpu", gpu, PRIMESHARE_USAGE_RENDER, tiled, 3, true);
	struct primeshare_endpoint *plane = endpoint("plane", display, PRIMESHARE_USAGE_SCANOUT, plain, 1, false);
	const struct primeshare_endpoint *both[] = {renderer, plane};
	struct primeshare_agreement *agreement = NULL;
	struct primeshare_choice choice;
	OK(primeshare_negotiate(both, 2, 640, 480, NULL, 0, PRIMESHARE_SUBSTITUTE_NEVER, &agreement));
	OK(primeshare_agreement_get_choice(agreement, 0, &choice));
	CHECK(choice.format == XRGB8888 && choice.allocator == 0);
	CHECK(choice.modifier_count == 1 && choice.modifiers[0] == LINEAR);
	FAILS(primeshare_agreement_get_choice(agreement, 99, &choice), ENOENT);
	CHECK(strlen(primeshare_agreement_text(agreement)) > 0);
	primeshare_agreement_destroy(agreement);
	/* With alpha ignored, the other format will do as well. */
	const uint32_t wanted[] = {ARGB8888};
	FAILS(primeshare_negotiate(both, 2, 640, 480, wanted, 1, PRIMESHARE_SUBSTITUTE_NEVER, &agreement), EOPNOTSUPP);
	CHECK(strstr(primeshare_last_error_message(), "AR24") != NULL);
	OK(primeshare_negotiate(both, 2, 640, 480, wanted, 1, PRIMESHARE_SUBSTITUTE_OPAQUE, &agreement));
	primeshare_agreement_destroy(agreement);
	FAILS(primeshare_negotiate(both, 2, 640, 480, NULL, 0, 7, &agreement), EINVAL);
	/* A display without an IOMMU takes what is contiguous only. */
	OK(primeshare_endpoint_set_contiguous(plane, true, false));
	FAILS(primeshare_negotiate(both, 2, 640, 480, NULL, 0, PRIMESHARE_SUBSTITUTE_NEVER, &agreement), EOPNOTSUPP);
	primeshare_endpoint_destroy(renderer);
	primeshare_endpoint_destroy(plane);
	primeshare_device_unref(gpu);
	primeshare_device_unref(display);
}

static void a_planes_blob_is_read_and_a_broken_one_refused(void) {
	/* struct drm_format_modifier_blob with one format and one modifier. */
	struct {
		uint32_t version, flags, count_formats, formats_offset, count_modifiers, modifiers_offset, format, padding;
		uint64_t formats;
		uint32_t offset, pad;
		uint64_t modifier;
	} blob = {1, 0, 1, 24, 1, 32, XRGB8888, 0, 1, 0, 0, LINEAR};
	struct primeshare_endpoint *plane, *renderer;
	const struct primeshare_format plain[] = {{XRGB8888, LINEAR}};
	OK(primeshare_endpoint_create("plane", NULL, PRIMESHARE_USAGE_SCANOUT, &plane));
	OK(primeshare_endpoint_add_in_formats(plane, &blob, sizeof(blob)));
	renderer = endpoint("gpu", NULL, 0, plain, 1, true);
	const struct primeshare_endpoint *both[] = {renderer, plane};
	struct primeshare_agreement *agreement;
	OK(primeshare_negotiate(both, 2, 64, 64, NULL, 0, 0, &agreement));
	primeshare_agreement_destroy(agreement);
	blob.count_modifiers = 1000;
	FAILS(primeshare_endpoint_add_in_formats(plane, &blob, sizeof(blob)), EINVAL);
	primeshare_endpoint_destroy(renderer);
	primeshare_endpoint_destroy(plane);
}

static void feedback_is_encoded_as_the_protocol_has_it(void) {
	const struct primeshare_format scanout[] = {{XRGB8888, LINEAR}}, sampled[] = {{XRGB8888, LINEAR}, {NV12, INVALID}};
	const struct primeshare_tranche tranches[] = {
		{.target_device = 0xe201, .flags = PRIMESHARE_TRANCHE_SCANOUT, .formats = scanout, .format_count = 1},
		{.target_device = 0xe200, .formats = sampled, .format_count = 2},
	};
	struct primeshare_feedback *feedback;
	struct primeshare_encoded_tranche tranche;
	const void *table;
	size_t size;
	OK(primeshare_feedback_create(4, 0xe200, tranches, 2, &feedback));
	OK(primeshare_feedback_get_table(feedback, &table, &size));
	const uint32_t expected[] = {XRGB8888, 0, 0, 0, NV12, 0, 0xffffffffu, 0x00ffffffu};
	CHECK(size == sizeof(expected) && memcmp(table, expected, size) == 0);
	OK(primeshare_feedback_get_tranche(feedback, 0, &tranche));
	CHECK(tranche.target_device == 0xe201 && tranche.flags == 1 && tranche.index_count == 1 && tranche.indices[0] == 0);
	OK(primeshare_feedback_get_tranche(feedback, 1, &tranche));
	CHECK(tranche.target_device == 0xe200 && tranche.index_count == 2 && tranche.indices[1] == 1);
	FAILS(primeshare_feedback_get_tranche(feedback, 2, &tranche), ENOENT);
	primeshare_feedback_destroy(feedback);
	/* Version 6 wants a flag for each tranche. */
	CHECK(primeshare_feedback_create(6, 0, tranches, 2, &feedback) < 0);
}

int main(void) {
	RUN(the_shared_modifier_is_chosen_and_who_allocates);
	RUN(a_planes_blob_is_read_and_a_broken_one_refused);
	RUN(feedback_is_encoded_as_the_protocol_has_it);
}
