//! Posthaste.
