//! HTTP/1.1: one attempt at a time, driven by the attempt itself.
//!
//! The library's connection future is polled by whoever waits for it: no task
//! of its own, no wake from one to the other.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http1::{Builder, Connection, SendRequest};
use posthaste_core::limits::{HEAD_BYTES_MAX, HEAD_FIELDS_MAX};

use super::{Broken, Io};
use crate::send::prepared::Payload;

pub(super) struct Http1 {
    sender: SendRequest<Payload>,
    /// `None` once it has ended: that closes the socket, and hands back a
    /// request it never took.
    driver: Option<Connection<Io, Payload>>,
}

impl Http1 {
    pub(super) async fn open(io: Io) -> hyper::Result<Self> {
        let (sender, driver) = Builder::new()
            .writev(false)
            .max_buf_size(HEAD_BYTES_MAX)
            .max_headers(HEAD_FIELDS_MAX)
            .handshake(io)
            .await?;
        let mut line = Self {
            sender,
            driver: Some(driver),
        };
        // It is ready for a request once it has been polled.
        poll_fn(|cx| {
            line.drive(cx);
            Poll::Ready(())
        })
        .await;
        Ok(line)
    }

    pub(super) fn is_ready(&self) -> bool {
        self.driver.is_some() && self.sender.is_ready()
    }

    pub(super) fn retire(&mut self) {
        self.driver = None;
    }

    /// Lets the connection read and write what it can.
    pub(super) fn drive(&mut self, cx: &mut Context<'_>) {
        if let Some(driver) = &mut self.driver
            && let Poll::Ready(end) = Pin::new(driver).poll(cx)
        {
            if let Err(error) = end {
                tracing::debug!(%error, "the connection broke");
            }
            self.driver = None;
        }
    }

    pub(super) async fn closed(&mut self) {
        poll_fn(|cx| {
            self.drive(cx);
            if self.driver.is_none() {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    }

    pub(super) async fn send(
        &mut self,
        request: Request<Payload>,
    ) -> Result<Response<Incoming>, Broken> {
        let mut response = pin!(self.sender.try_send_request(request));
        let response = poll_fn(|cx| {
            self.drive(cx);
            response.as_mut().poll(cx)
        });
        response.await.map_err(Broken::from)
    }
}
