/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * primeshare: GPU buffers shared between DRM devices, Vulkan, screens and processes.
 *
 * Conventions, the same everywhere:
 *
 * Errors      A function that can fail returns 0 or a negative errno; one that returns an fd or a number returns the
 *             errno in its place. Results are written on success only. primeshare_last_error_message says what failed.
 * Objects     are opaque. Counted ones have _ref and _unref; the others have _destroy and belong to one thread at a time.
 *             An object keeps what it needs: give references back in any order. NULL is -EINVAL, but for _unref and
 *             _destroy, which take it. Debug builds of the library end the process if a pointer is no living object.
 * Threads     A parameter `const struct primeshare_x *` may be used by any threads at a time. `struct primeshare_x *`
 *             is used by one thread at a time. Errors are kept for each thread.
 * Fds         that the program gives are borrowed: the library dups what it keeps. Those that it hands out are new,
 *             close-on-exec, and the program's to close, unless the function says that they stay the library's.
 * Fences      are fds of sync files. -1 is one that is signalled.
 * Structs     that begin with `size` may grow: set it to sizeof. Fields that a program does not know are zero, and zero
 *             is the default. Such a parameter may be NULL where the function says so.
 * Waiting     Nothing waits for a GPU or another process, unless its name ends in _wait.
 * Callbacks   The log handler is the only one.
 * Forks       After fork, the child may only call exec or _exit.
 * Memory      Pointers that a function returns live as long as the object that they came from.
 * Signals     Threads of the library block all of them.
 */
#ifndef PRIMESHARE_H
#define PRIMESHARE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The library ----------------------------------------------------------------------------------------- */

/* The version as text, "0.1.0". Static. */
const char *primeshare_version(void);

/*
 * Whether the library was built with a layer: "gbm", "vulkan", "blit" or "kms". Without it the header and the
 * functions of that layer are not installed.
 */
bool primeshare_has_feature(const char *layer);

/* How much a message of the log matters. */
enum primeshare_log_level {
  /* Nothing is logged. */
  PRIMESHARE_LOG_SILENT = 0,
  /* Something failed, and no call could return it. */
  PRIMESHARE_LOG_ERROR = 1,
  /* Something went another way than usual. */
  PRIMESHARE_LOG_WARNING = 2,
  /* What happens seldom. */
  PRIMESHARE_LOG_INFO = 3,
  /* What helps to find a fault. */
  PRIMESHARE_LOG_DEBUG = 4,
};

/*
 * Takes a line of the log. It is called on any thread, and sometimes while the library holds a lock: it must not call
 * the library, nor wait for a thread that does.
 */
typedef void (*primeshare_log_handler)(enum primeshare_log_level level, const char *message, void *data);

/*
 * Sends lines of the log up to this level (enum primeshare_log_level) to a handler; NULL: to nobody, as at the
 * beginning. When this returns, the handler before is not called any more. The handler must not call this.
 *
 * -EINVAL: there is no such level.
 */
int primeshare_set_log_handler(primeshare_log_handler handler,
                               uint32_t level,
                               void *data);

/* Errors ---------------------------------------------------------------------------------------------- */

/*
 * Functions that can fail return 0 or a negative errno, and a function that returns an fd or a number returns the
 * errno in its place. Results are written on success only. What a thread's last failed call was is kept until the
 * next one fails, and a call that succeeds does not clear it.
 */

/* What a program can do about an error. */
enum primeshare_error_kind {
  /* No call of this thread has failed. */
  PRIMESHARE_ERROR_NONE = 0,
  /* The device is gone: unplugged, or its Vulkan device was lost. Drop what was made on it. */
  PRIMESHARE_ERROR_LOST = 1,
  /* A driver or the kernel refuses this, and will refuse it again: try another way. */
  PRIMESHARE_ERROR_REFUSED = 2,
  /* Memory, fds or room in a queue are missing at the moment: the same call may succeed later. */
  PRIMESHARE_ERROR_TRANSIENT = 3,
  /* An argument is wrong. */
  PRIMESHARE_ERROR_INVALID = 4,
  /* The kernel, the driver, the device or this build of the library lacks the feature. */
  PRIMESHARE_ERROR_UNSUPPORTED = 5,
  /* What is needed is in use: wait for it and try again. */
  PRIMESHARE_ERROR_BUSY = 6,
  /* The deadline passed first. */
  PRIMESHARE_ERROR_TIMED_OUT = 7,
  /* None of these. */
  PRIMESHARE_ERROR_OTHER = 8,
};

/* What can be done about this thread's last error. */
enum primeshare_error_kind primeshare_last_error_kind(void);

/* The function whose failure was this thread's last error; "" before there is one. Static. */
const char *primeshare_last_error_operation(void);

/* What failed, on which device, and why, in English; "" before an error. Valid until a call of this thread fails. */
const char *primeshare_last_error_message(void);

/*
 * What a Wayland server answers to a client whose buffer was the reason for this thread's last error: the code of
 * zwp_linux_buffer_params_v1's protocol error, or -1 for its event `failed`.
 */
int primeshare_last_error_linux_dmabuf(void);

/* Devices --------------------------------------------------------------------------------------------- */

/*
 * A device is one open file description of a DRM node, with one table of GEM handles.
 */

/* An open DRM device. All calls are thread-safe. */
struct primeshare_device;

/* Opens a DRM node, "/dev/dri/card0" or "/dev/dri/renderD128": a file description of the library's own. */
int primeshare_device_open(const char *path, struct primeshare_device **device);

/*
 * The device of an fd of the program's, on the same file description: handles of the library are valid there, and
 * the program and the library share one table. All devices of one file description share it, too.
 *
 * Only for programs whose GEM handles all go through the library. Beside other code that imports, exports or closes
 * handles on that file description (gbm, EGL, a Vulkan driver, the program's own ioctls), use
 * primeshare_device_private_copy_of. Borrows the fd and keeps a dup.
 */
int primeshare_device_from_fd(int drm_fd,
                              struct primeshare_device **device);

/*
 * The device of an fd of the program's, on a new file description, beside whatever works on the program's. Borrows
 * the fd.
 *
 * The kernel's rights (DRM master, authentication) stay with the program's file description; framebuffers that the
 * library makes on its own can be shown by the program's commits.
 */
int primeshare_device_private_copy_of(int drm_fd,
                                      struct primeshare_device **device);

/* Opens the device with this number (dev_t), such as a linux-dmabuf feedback names. -ENOENT if there is none. */
int primeshare_device_find(uint64_t device_number, struct primeshare_device **device);

/*
 * Opens all DRM nodes of the system that can be opened, and writes as many as there is room for. Sets `count` to the
 * number of devices that were opened, which may be more: those are closed again. Nodes that cannot be opened are
 * logged and left out.
 */
int primeshare_device_open_all(struct primeshare_device **devices,
                               size_t capacity,
                               size_t *count);

/* Adds a reference, and returns the device. NULL is allowed. */
struct primeshare_device *primeshare_device_ref(const struct primeshare_device *device);

/*
 * Takes a reference back. The device is closed with the last one, and with the last buffer, import or other object
 * that was made on it. NULL is allowed.
 */
void primeshare_device_unref(struct primeshare_device *device);

/* The fd, which stays the library's: for ioctls with handles of the library. -EINVAL if `device` is NULL. */
int primeshare_device_fd(const struct primeshare_device *device);

/* The name of the kernel's driver, "amdgpu"; NULL if `device` is NULL. Lives as long as the device. */
const char *primeshare_device_driver(const struct primeshare_device *device);

/* The path of the node, "/dev/dri/card0"; NULL if `device` is NULL. Lives as long as the device. */
const char *primeshare_device_path(const struct primeshare_device *device);

/* What there is to know about a device. */
struct primeshare_device_info {
  /* sizeof(struct primeshare_device_info) */
  size_t size;
  /* The number of the node (dev_t). A GPU has two, one of its primary and one of its render node. */
  uint64_t device_number;
  /* The same for all nodes of a device, and different for different devices. */
  uint64_t key;
  /* 1 if it is a render node. */
  int32_t is_render_node;
  /* 1 if it makes dumb buffers. */
  int32_t dumb;
  /* Whether it exports dma-bufs: 1 or 0, or -1 if that could not be found out. */
  int32_t exports;
  /* Whether it imports dma-bufs: 1 or 0, or -1 if that could not be found out. */
  int32_t imports;
  /* Whether it imports memory that is not contiguous: 1 or 0, or -1 if that could not be found out. */
  int32_t imports_scattered;
};

/* Fills in what there is to know about a device. Finds it out by trying; the answer is kept. */
int primeshare_device_get_info(const struct primeshare_device *device, struct primeshare_device_info *info);

/* Whether two devices are one: nodes and file descriptions of the same hardware. `false` if one is NULL. */
bool primeshare_device_is_same(const struct primeshare_device *device, const struct primeshare_device *other);

/* What the handle table of a device has done, since its file description is known to the library. */
struct primeshare_table_statistics {
  /* sizeof(struct primeshare_table_statistics) */
  size_t size;
  /* Open handles. */
  uint64_t handles;
  /* Imports of what was imported already, without a system call. */
  uint64_t hits;
  /* Calls of PRIME_FD_TO_HANDLE. */
  uint64_t imports;
  /* Calls of PRIME_HANDLE_TO_FD. */
  uint64_t exports;
  /* Calls of GEM_CLOSE. */
  uint64_t closes;
  /* Those that failed. */
  uint64_t failed_closes;
  /* Imports that met a handle on its way to be closed, and kept it. */
  uint64_t resurrected;
};

/* Fills in what the handle table has done: for tests and debugging. */
int primeshare_device_get_statistics(const struct primeshare_device *device,
                                     struct primeshare_table_statistics *statistics);

/*
 * Writes the key of the device that a number (dev_t) is of: nodes of one device have equal keys. A number
 * of which nothing is known has a key of its own.
 */
int primeshare_device_key_of(uint64_t device_number, uint64_t *key);

/* Buffers --------------------------------------------------------------------------------------------- */

/*
 * A buffer is one dma-buf or several, and what is in them. It says who it is: compare ids, never fds.
 */

/* The most planes that a buffer has. */
#define PRIMESHARE_MAX_PLANES 4

/*
 * The identity of a dma-buf: what fstat says of it. Equal for all fds of a dma-buf in all processes, as long as one
 * of them is open.
 */
struct primeshare_buffer_id {
  /* st_dev */
  uint64_t device;
  /* st_ino */
  uint64_t inode;
};

/* Where a plane is. */
struct primeshare_plane {
  /* The dma-buf that it is in. Planes may share one. */
  int fd;
  /* Where it begins, in bytes. */
  uint32_t offset;
  /* From row to row, in bytes. */
  uint32_t stride;
};

/* What a buffer is. */
struct primeshare_buffer_info {
  /* sizeof(struct primeshare_buffer_info) */
  size_t size;
  /* In pixels. */
  uint32_t width;
  /* In pixels. */
  uint32_t height;
  /* DRM_FORMAT_* of drm_fourcc.h. */
  uint32_t format;
  /* The bits of zwp_linux_buffer_params_v1.flags: y-inverted 1, interlaced 2, bottom field first 4. */
  uint32_t flags;
  /* DRM_FORMAT_MOD_*. DRM_FORMAT_MOD_INVALID is a layout that only the driver that made it knows. */
  uint64_t modifier;
  /* From 1 to 4. */
  uint32_t plane_count;
  /* As many as that. */
  struct primeshare_plane planes[PRIMESHARE_MAX_PLANES];
};

/* A buffer. All calls are thread-safe. */
struct primeshare_buffer;

/*
 * Makes a buffer of dma-bufs that came from outside. Trusts nothing: checks fds, sizes, offsets, strides and the
 * plane count. Borrows the fds and keeps a dup of each dma-buf.
 *
 * If it fails, primeshare_last_error_linux_dmabuf says what a Wayland server answers.
 */
int primeshare_buffer_create(const struct primeshare_buffer_info *info,
                             struct primeshare_buffer **buffer);

/* Adds a reference, and returns the buffer. NULL is allowed. */
struct primeshare_buffer *primeshare_buffer_ref(const struct primeshare_buffer *buffer);

/* Takes a reference back. The buffer's fds are closed with the last one. NULL is allowed. */
void primeshare_buffer_unref(struct primeshare_buffer *buffer);

/* Fills in what a buffer is. Its fds stay the buffer's, and are open as long as it lives. */
int primeshare_buffer_get_info(const struct primeshare_buffer *buffer, struct primeshare_buffer_info *info);

/* Writes the identity of a buffer's first dma-buf. Costs no system call. */
int primeshare_buffer_get_id(const struct primeshare_buffer *buffer, struct primeshare_buffer_id *id);

/* Sends a buffer to another process, over a Unix socket of the kind SOCK_SEQPACKET. Borrows the socket. */
int primeshare_buffer_send(const struct primeshare_buffer *buffer, int socket);

/*
 * Receives a buffer that primeshare_buffer_send sent, and checks it as primeshare_buffer_create does. Borrows the
 * socket, and waits for a message if the socket does. -ECONNRESET: the other process has closed its end.
 */
int primeshare_buffer_receive_wait(int socket,
                                   struct primeshare_buffer **buffer);

/* Handle table ---------------------------------------------------------------------------------------- */

/*
 * A GEM object has one handle on a file description, however often it is imported, and the handle is closed when the
 * last user of the object goes. Programs must not close a handle of the library with GEM_CLOSE.
 */

/* What an import met. */
enum primeshare_import_origin {
  /* The object is new on this file description. */
  PRIMESHARE_IMPORT_NEW = 0,
  /* The same dma-buf is imported there already. */
  PRIMESHARE_IMPORT_ALREADY_IMPORTED = 1,
  /*
   * The library allocated the object there: it has come back. Of adopted objects it does not know where they are
   * from, and says PRIMESHARE_IMPORT_ALREADY_IMPORTED.
   */
  PRIMESHARE_IMPORT_SELF = 2,
};

/*
 * A GEM object on a device. Its handle is valid on the file description of the device, as long as the object lives.
 * All calls are thread-safe.
 */
struct primeshare_object;

/* Imports a dma-buf about which nothing else is known (PRIME_FD_TO_HANDLE). Borrows the fd. `origin` may be NULL. */
int primeshare_device_import_fd(const struct primeshare_device *device,
                                int dma_buf,
                                struct primeshare_object **object,
                                enum primeshare_import_origin *origin);

/*
 * Makes the library the owner of a handle that the program got by itself, from a driver's ioctl for example: from
 * now on only the library closes it. After an error it is still the program's.
 *
 * The handle must be open, and nobody else may close it. The handle is exported, once, to learn which dma-buf it is
 * of. Do not import a dma-buf by an ioctl to adopt its handle: use primeshare_device_import_fd.
 */
int primeshare_device_adopt(const struct primeshare_device *device,
                            uint32_t handle,
                            struct primeshare_object **object);

/* Adds a reference, and returns the object. NULL is allowed. */
struct primeshare_object *primeshare_object_ref(const struct primeshare_object *object);

/* Takes a reference back. The handle is closed with the last user of the object. NULL is allowed. */
void primeshare_object_unref(struct primeshare_object *object);

/* The handle; 0, which is none, if `object` is NULL. */
uint32_t primeshare_object_handle(const struct primeshare_object *object);

/*
 * Exports an object as a dma-buf, readable and writable: `dma_buf` is a new fd, close-on-exec, and the program's.
 * An imported object gives its own dma-buf again. `id` may be NULL.
 */
int primeshare_object_export(const struct primeshare_object *object,
                             int *dma_buf,
                             struct primeshare_buffer_id *id);

/* A buffer on a device: a GEM handle for each plane, valid as long as the import lives. All calls are thread-safe. */
struct primeshare_import;

/*
 * Imports a buffer. If the program has an import of the buffer on this device, this is the same one with one more
 * reference, and costs no system call and no allocation.
 */
int primeshare_device_import(const struct primeshare_device *device,
                             const struct primeshare_buffer *buffer,
                             struct primeshare_import **import);

/* Adds a reference, and returns the import. NULL is allowed. */
struct primeshare_import *primeshare_import_ref(const struct primeshare_import *import);

/* Takes a reference back. The handles are closed with the last user of their objects. NULL is allowed. */
void primeshare_import_unref(struct primeshare_import *import);

/*
 * Writes the handle of each plane, and 0 past the last: as DRM_IOCTL_MODE_ADDFB2 takes them. Planes in one dma-buf
 * have one handle. `handles` has room for four. `origin`, which may be NULL, is what the import met of the
 * first plane's object.
 */
int primeshare_import_get_handles(const struct primeshare_import *import,
                                  uint32_t *handles,
                                  enum primeshare_import_origin *origin);

/* Allocation ------------------------------------------------------------------------------------------ */

/* The buffer is drawn into. */
#define PRIMESHARE_USAGE_RENDER 1

/* It is sampled as a texture. */
#define PRIMESHARE_USAGE_SAMPLE 2

/* It is read and written in shaders. */
#define PRIMESHARE_USAGE_STORE 4

/* It is copied from. */
#define PRIMESHARE_USAGE_COPY_FROM 8

/* It is copied into. */
#define PRIMESHARE_USAGE_COPY_TO 16

/* It is shown on a screen. */
#define PRIMESHARE_USAGE_SCANOUT 32

/* The CPU reads or writes it. */
#define PRIMESHARE_USAGE_MAP 64

/* What to allocate. */
struct primeshare_request {
  /* sizeof(struct primeshare_request) */
  size_t size;
  /* In pixels. */
  uint32_t width;
  /* In pixels. */
  uint32_t height;
  /* DRM_FORMAT_* of drm_fourcc.h. */
  uint32_t format;
  /* PRIMESHARE_USAGE_* */
  uint32_t usage;
  /* The modifiers to choose from. DRM_FORMAT_MOD_INVALID among them leaves the layout to the driver. NULL: linear. */
  const uint64_t *modifiers;
  /* How many. */
  size_t modifier_count;
};

/* What allocates buffers. All calls are thread-safe. */
struct primeshare_allocator;

/* Allocates dumb buffers of a device: linear, for the CPU and the screen. */
int primeshare_allocator_create_dumb(const struct primeshare_device *device,
                                     struct primeshare_allocator **allocator);

/* Allocates memory of the process as dma-bufs (/dev/udmabuf): linear, of no device. */
int primeshare_allocator_create_udmabuf(struct primeshare_allocator **allocator);

/* Allocates from a dma-buf heap, "/dev/dma_heap/system"; NULL is that one. Linear, of no device. */
int primeshare_allocator_create_dma_heap(const char *path, struct primeshare_allocator **allocator);

/* Adds a reference, and returns the allocator. NULL is allowed. */
struct primeshare_allocator *primeshare_allocator_ref(const struct primeshare_allocator *allocator);

/* Takes a reference back. Buffers outlive their allocator. NULL is allowed. */
void primeshare_allocator_unref(struct primeshare_allocator *allocator);

/* Its name, for people; NULL if `allocator` is NULL. Lives as long as the allocator. */
const char *primeshare_allocator_name(const struct primeshare_allocator *allocator);

/* Allocates a buffer. Its memory is not defined, and its modifier is one of those that were asked for. */
int primeshare_allocator_allocate(const struct primeshare_allocator *allocator,
                                  const struct primeshare_request *request,
                                  struct primeshare_buffer **buffer);

/* Fences ---------------------------------------------------------------------------------------------- */

/*
 * Fences are fds of sync files. Those that a program gives are borrowed, and -1 is a fence that is signalled. Those
 * that it gets are new, close-on-exec, and the program's.
 */

/* Reading. */
#define PRIMESHARE_ACCESS_READ 1

/* Writing. */
#define PRIMESHARE_ACCESS_WRITE 2

/* Both. */
#define PRIMESHARE_ACCESS_READ_WRITE 3

/*
 * Writes a fence of the pending work on a buffer that has to end before an access (DMA_BUF_IOCTL_EXPORT_SYNC_FILE,
 * Linux 5.20): writers before reading, everyone before writing.
 */
int primeshare_buffer_export_fence(const struct primeshare_buffer *buffer,
                                   uint32_t access_kind,
                                   int *sync_file);

/*
 * Adds a fence of an access to a buffer, for those who synchronise implicitly (DMA_BUF_IOCTL_IMPORT_SYNC_FILE, Linux
 * 5.20). -1 does nothing.
 */
int primeshare_buffer_import_fence(const struct primeshare_buffer *buffer,
                                   uint32_t access_kind,
                                   int sync_file_fd);

/* Returns 1 if a fence is signalled, 0 if it is not, and a negative errno if its work has failed. Does not wait. */
int primeshare_fence_is_signalled(int sync_file_fd);

/* Waits until a fence is signalled; a negative timeout, in nanoseconds, is none. -ETIME or -ETIMEDOUT if it passes. */
int primeshare_fence_wait(int sync_file_fd,
                          int64_t timeout_ns);

/* Makes a fence that is signalled when all of these are; -1 if all of them are -1. */
int primeshare_fence_merge(const int *sync_files, size_t count, int *merged);

/* Access by the CPU ----------------------------------------------------------------------------------- */

/* A buffer in the address space of the process. It belongs to one thread at a time. */
struct primeshare_mapping;

/* Where a plane is mapped. */
struct primeshare_mapped_plane {
  /* Its first row. To be written only during an access that writes. */
  void *data;
  /* From row to row, in bytes. */
  size_t stride;
  /* The bytes of a row that are pixels. */
  size_t row_bytes;
  /* Its rows. */
  size_t rows;
};

/* Maps a buffer, for reading only if `read_only`. Linear buffers only. */
int primeshare_mapping_create(const struct primeshare_buffer *buffer,
                              bool read_only,
                              struct primeshare_mapping **mapping);

/* Ends an access that is under way, and unmaps the buffer. NULL is allowed. */
void primeshare_mapping_destroy(struct primeshare_mapping *mapping);

/*
 * Begins an access (PRIMESHARE_ACCESS_*): waits for the GPUs that work on the buffer, at most `timeout_ns`
 * nanoseconds (negative: without end), and makes caches coherent (DMA_BUF_IOCTL_SYNC). -EBUSY: one is under way.
 */
int primeshare_mapping_begin_wait(struct primeshare_mapping *mapping,
                                  uint32_t access_kind,
                                  int64_t timeout_ns);

/* Writes where a plane is, during an access. */
int primeshare_mapping_get_plane(struct primeshare_mapping *mapping,
                                 uint32_t plane,
                                 struct primeshare_mapped_plane *mapped);

/* Ends the access: what was written can be seen by devices from now on. The pointers are not to be used any more. */
int primeshare_mapping_end(struct primeshare_mapping *mapping);

/* Negotiation ----------------------------------------------------------------------------------------- */

/*
 * Which formats and modifiers all users of a buffer share, and who can allocate them. Asks no device: the program
 * says what each user (endpoint) can do.
 */

/* A format and a modifier. */
struct primeshare_format {
  /* DRM_FORMAT_* of drm_fourcc.h. */
  uint32_t format;
  /* DRM_FORMAT_MOD_*. DRM_FORMAT_MOD_INVALID stands for buffers whose layout is left to the driver. */
  uint64_t modifier;
};

/* Somebody who will use the buffer. It belongs to one thread at a time. */
struct primeshare_endpoint;

/*
 * Makes an endpoint that can do nothing yet. `device` may be NULL: it is not known, and taken for different from all
 * others. `usage_bits` (PRIMESHARE_USAGE_*) is what it will do with the buffer; `name` is for people.
 */
int primeshare_endpoint_create(const char *name,
                               const struct primeshare_device *device,
                               uint32_t usage_bits,
                               struct primeshare_endpoint **endpoint);

/* Ends an endpoint. NULL is allowed. */
void primeshare_endpoint_destroy(struct primeshare_endpoint *endpoint);

/* Adds what the endpoint can import, and also allocate if `allocates`. */
int primeshare_endpoint_add(struct primeshare_endpoint *endpoint,
                            const struct primeshare_format *formats,
                            size_t count,
                            bool allocates);

/* Adds what a KMS plane shows: the bytes of its IN_FORMATS blob. */
int primeshare_endpoint_add_in_formats(struct primeshare_endpoint *endpoint,
                                       const void *blob,
                                       size_t blob_size);

/*
 * Says that the endpoint uses contiguous memory only, as display controllers without an IOMMU do, and whether what it
 * allocates is contiguous.
 */
int primeshare_endpoint_set_contiguous(struct primeshare_endpoint *endpoint,
                                       bool needs,
                                       bool allocates);

/* Formats with and without alpha do not stand in for each other. */
#define PRIMESHARE_SUBSTITUTE_NEVER 0

/* An endpoint that does not list a format with alpha may ignore the alpha. */
#define PRIMESHARE_SUBSTITUTE_OPAQUE 1

/* And one that lists only the format with alpha may take one without as that. */
#define PRIMESHARE_SUBSTITUTE_BOTH 2

/* What endpoints share. */
struct primeshare_agreement;

/*
 * Finds what endpoints share, for a buffer of this size in one of these formats, best first; no formats: any.
 * -EOPNOTSUPP if there is nothing, and the message says why.
 */
int primeshare_negotiate(const struct primeshare_endpoint *const *endpoints,
                         size_t endpoint_count,
                         uint32_t width,
                         uint32_t height,
                         const uint32_t *formats,
                         size_t format_count,
                         uint32_t substitute,
                         struct primeshare_agreement **agreement);

/* Ends an agreement. NULL is allowed. */
void primeshare_agreement_destroy(struct primeshare_agreement *agreement);

/* A format, and who can allocate it with which modifiers. */
struct primeshare_choice {
  /* DRM_FORMAT_* of drm_fourcc.h. */
  uint32_t format;
  /* Which of the endpoints allocates, counted from 0. */
  size_t allocator;
  /* For it to choose from: the modifiers of a struct primeshare_request. They live as long as the agreement. */
  const uint64_t *modifiers;
  /* How many. */
  size_t modifier_count;
};

/* Writes a choice, counted from 0, the best first. -ENOENT past the last. */
int primeshare_agreement_get_choice(const struct primeshare_agreement *agreement,
                                    size_t index,
                                    struct primeshare_choice *choice);

/*
 * The choices, and why there are not more, for people: a line each; NULL if `agreement` is NULL. Lives as long as
 * the agreement.
 */
const char *primeshare_agreement_text(const struct primeshare_agreement *agreement);

/* A screen of the target device may show buffers of the tranche as they are. */
#define PRIMESHARE_TRANCHE_SCANOUT 1

/* The target device samples them efficiently (linux-dmabuf 6). */
#define PRIMESHARE_TRANCHE_SAMPLING 2

/* Formats and modifiers that are liked equally well, for linux-dmabuf feedback. */
struct primeshare_tranche {
  /* The number (dev_t) of the device that will use the buffers. */
  uint64_t target_device;
  /* PRIMESHARE_TRANCHE_* */
  uint32_t flags;
  /* The formats and modifiers. */
  const struct primeshare_format *formats;
  /* How many. */
  size_t format_count;
};

/* linux-dmabuf feedback, encoded. */
struct primeshare_feedback;

/*
 * Encodes feedback for a client that has bound this version of zwp_linux_dmabuf_v1: tranches, best first, and the
 * main device's number (dev_t), which versions from 6 on do not have (0).
 */
int primeshare_feedback_create(uint32_t version,
                               uint64_t main_device,
                               const struct primeshare_tranche *tranches,
                               size_t tranche_count,
                               struct primeshare_feedback **feedback);

/* Ends encoded feedback. NULL is allowed. */
void primeshare_feedback_destroy(struct primeshare_feedback *feedback);

/*
 * Writes where the format table is: the contents of the fd of zwp_linux_dmabuf_feedback_v1.format_table. It lives as
 * long as the feedback.
 */
int primeshare_feedback_get_table(const struct primeshare_feedback *feedback,
                                  const void **table,
                                  size_t *table_size);

/* A tranche of encoded feedback. */
struct primeshare_encoded_tranche {
  /* tranche_target_device */
  uint64_t target_device;
  /* tranche_flags */
  uint32_t flags;
  /*
   * tranche_formats: indices into the table. They live as long as the feedback. A message of Wayland has at most 4096
   * bytes, so send no more than 2000 at a time.
   */
  const uint16_t *indices;
  /* How many. */
  size_t index_count;
};

/* Writes a tranche, counted from 0. -ENOENT past the last. */
int primeshare_feedback_get_tranche(const struct primeshare_feedback *feedback,
                                    size_t index,
                                    struct primeshare_encoded_tranche *tranche);

/* Wayland --------------------------------------------------------------------------------------------- */

/*
 * Between a server's protocol library and buffers. Nothing here depends on libwayland: a server passes on what its
 * clients' requests say, and answers as primeshare_last_error_linux_dmabuf says.
 */

/*
 * The planes that a client has sent with zwp_linux_buffer_params_v1, until it asks for a buffer. It belongs to one thread
 * at a time.
 */
struct primeshare_params;

/* zwp_linux_dmabuf_v1.create_params */
int primeshare_params_create(struct primeshare_params **params);

/* zwp_linux_buffer_params_v1.destroy. Closes the fds of planes that are in no buffer. NULL is allowed. */
void primeshare_params_destroy(struct primeshare_params *params);

/*
 * zwp_linux_buffer_params_v1.add: borrows the fd and keeps a dup. `modifier` is both halves of the request's.
 *
 * If it fails, primeshare_last_error_linux_dmabuf has the protocol error to post. -1: it is not the client's fault (no fds
 * are left, for example); post no_memory (2) of wl_display.
 */
int primeshare_params_add(struct primeshare_params *params,
                          uint32_t plane,
                          int dma_buf,
                          uint32_t offset,
                          uint32_t stride,
                          uint64_t modifier);

/*
 * zwp_linux_buffer_params_v1.create and create_immed, with the flags of the request. `offered` are all formats and
 * modifiers that the server's feedback has. Whether a GPU takes the buffer is asked afterwards, and is not the client's
 * fault.
 *
 * If it fails, primeshare_last_error_linux_dmabuf has the protocol error to post, or is -1: then create is answered by the
 * event `failed`, and create_immed by that event or by the error invalid_wl_buffer (7).
 */
int primeshare_params_create_buffer(struct primeshare_params *params,
                                    int32_t width,
                                    int32_t height,
                                    uint32_t format,
                                    uint32_t flags,
                                    const struct primeshare_format *offered,
                                    size_t offered_count,
                                    struct primeshare_buffer **buffer);

/*
 * An fd for zwp_linux_dmabuf_feedback_v1.format_table: a memfd with the table that nobody can change any more, so that all
 * clients can be sent the same. The fd is the caller's, and close-on-exec.
 */
int primeshare_feedback_create_table_fd(const struct primeshare_feedback *feedback);

/*
 * Makes a buffer of a client's memory (`wl_shm`) without a copy: linear rows, `stride` bytes apart, from `offset` on in a
 * memfd, which is borrowed. The memfd is sealed against shrinking if it is not yet. What the client writes later is in the
 * buffer as well, so the client's wl_buffer is released only when nobody reads this one any more.
 *
 * Where devices do not see the CPU's caches, the server makes the memory visible after each commit: a
 * primeshare_mapping_begin_wait for writing and a primeshare_mapping_end.
 *
 * Fails if the memory cannot be shared (no memfd, no seals, no /dev/udmabuf …): copy it then.
 */
int primeshare_buffer_create_from_memfd(int memfd,
                                        uint32_t width,
                                        uint32_t height,
                                        uint32_t format,
                                        uint32_t offset,
                                        uint32_t stride,
                                        struct primeshare_buffer **buffer);

#ifdef __cplusplus
}
#endif

#endif
