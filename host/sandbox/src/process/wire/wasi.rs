//! The records, variants and flags of WASI, as far as functions of the host take or give them.

use std::io;

use wasmtime_wasi::p2::bindings::clocks::wall_clock;
use wasmtime_wasi::p2::bindings::filesystem::types as files;
use wasmtime_wasi::p2::bindings::io::streams;
use wasmtime_wasi_http::p2::bindings::http::types as http;

use super::{Reader, Wire, unknown};

records! {
    wall_clock::Datetime { seconds, nanoseconds }
    files::DescriptorStat { type_, link_count, size, data_access_timestamp, data_modification_timestamp, status_change_timestamp }
    files::DirectoryEntry { type_, name }
    files::MetadataHashValue { lower, upper }
    http::DnsErrorPayload { rcode, info_code }
    http::TlsAlertReceivedPayload { alert_id, alert_message }
    http::FieldSizePayload { field_name, field_size }
}

variants! {
    streams::StreamError { LastOperationFailed(it), Closed }
    files::NewTimestamp { NoChange, Now, Timestamp(it) }
    http::Method { Get, Head, Post, Put, Delete, Connect, Options, Trace, Patch, Other(it) }
    http::Scheme { Http, Https, Other(it) }
    http::HeaderError { InvalidSyntax, Forbidden, Immutable }
    http::ErrorCode { DnsTimeout, DnsError(it), DestinationNotFound, DestinationUnavailable, DestinationIpProhibited, DestinationIpUnroutable, ConnectionRefused, ConnectionTerminated, ConnectionTimeout, ConnectionReadTimeout, ConnectionWriteTimeout, ConnectionLimitReached, TlsProtocolError, TlsCertificateError, TlsAlertReceived(it), HttpRequestDenied, HttpRequestLengthRequired, HttpRequestBodySize(it), HttpRequestMethodInvalid, HttpRequestUriInvalid, HttpRequestUriTooLong, HttpRequestHeaderSectionSize(it), HttpRequestHeaderSize(it), HttpRequestTrailerSectionSize(it), HttpRequestTrailerSize(it), HttpResponseIncomplete, HttpResponseHeaderSectionSize(it), HttpResponseHeaderSize(it), HttpResponseBodySize(it), HttpResponseTrailerSectionSize(it), HttpResponseTrailerSize(it), HttpResponseTransferCoding(it), HttpResponseContentCoding(it), HttpResponseTimeout, HttpUpgradeFailed, HttpProtocolError, LoopDetected, ConfigurationError, InternalError(it) }
}

variants! {
    files::DescriptorType { Unknown, BlockDevice, CharacterDevice, Directory, Fifo, SymbolicLink, RegularFile, Socket }
    files::Advice { Normal, Sequential, Random, WillNeed, DontNeed, NoReuse }
    files::ErrorCode { Access, WouldBlock, Already, BadDescriptor, Busy, Deadlock, Quota, Exist, FileTooLarge, IllegalByteSequence, InProgress, Interrupted, Invalid, Io, IsDirectory, Loop, TooManyLinks, MessageSize, NameTooLong, NoDevice, NoEntry, NoLock, InsufficientMemory, InsufficientSpace, NotDirectory, NotEmpty, NotRecoverable, Unsupported, NoTty, NoSuchDevice, Overflow, NotPermitted, Pipe, ReadOnly, InvalidSeek, TextFileBusy, CrossDevice }
}

flags! {
    files::DescriptorFlags { READ, WRITE, FILE_INTEGRITY_SYNC, DATA_INTEGRITY_SYNC, REQUESTED_WRITE_SYNC, MUTATE_DIRECTORY }
    files::PathFlags { SYMLINK_FOLLOW }
    files::OpenFlags { CREATE, DIRECTORY, EXCLUSIVE, TRUNCATE }
}
