//! What each system call of a copy is for.

/// Why a frame makes a call, where that is known.
pub(crate) fn reason(call: &str) -> &'static str {
    match call {
        "poll" | "ppoll" => "are the buffers' fences signalled? one call for all of them",
        "futex" => "a lock or a thread that waits: the driver's queue, the blitter's thread",
        "write" => "the eventfd that wakes the blitter's thread or a program's event loop",
        "read" => "the eventfd is reset",
        "clock_gettime" => "the time (without a vDSO, as in User-Mode Linux)",
        "DMA_BUF_IOCTL_SYNC" => "the CPU's access begins or ends: caches",
        "DMA_BUF_IOCTL_EXPORT_SYNC_FILE" => "the fences that the copy waits for",
        "DMA_BUF_IOCTL_IMPORT_SYNC_FILE" => "the copy's fence, left for others",
        "SYNC_IOC_FILE_INFO" => "is it a sync file, and how did it end?",
        "SYNC_IOC_MERGE" => "a file description of one's own",
        "rt_sigprocmask" => "can the mapped memory be read without SIGBUS?",
        "close" => "a sync file is let go of",
        _ => "the driver's",
    }
}
