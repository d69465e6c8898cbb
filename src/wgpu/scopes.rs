//! wgpu's errors, which it reports beside its results.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use wgpu::ErrorFilter;

use super::Error;

/// Calls `work`, and catches the errors that wgpu reports for it. Without this, wgpu would hand them to the
/// host's handler, or panic. Errors of other threads are not caught.
pub(super) fn catch<T>(
    device: &wgpu::Device,
    work: impl FnOnce() -> Result<T, Error>,
) -> Result<T, Error> {
    let scopes = [
        ErrorFilter::Validation,
        ErrorFilter::OutOfMemory,
        ErrorFilter::Internal,
    ]
    .map(|filter| device.push_error_scope(filter));
    let result = work();
    let mut caught = None;
    // Scopes have to be popped in reverse order.
    for scope in scopes.into_iter().rev() {
        let error = pin!(scope.pop());
        // wgpu-core has the answer ready.
        if let Poll::Ready(Some(error)) = error.poll(&mut Context::from_waker(Waker::noop())) {
            caught = Some(Error::Wgpu(error.to_string()));
        }
    }
    match caught {
        Some(error) => Err(error),
        None => result,
    }
}
