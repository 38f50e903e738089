//! Requests, by `wasi:http`. A process puts one together by its number, and the host sends it, once it is
//! authorised as one of a guest in the engine is. Bodies are streams of `wasi:io`.

use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, Resource, ResourceType};
use wasmtime_wasi::p2::{DynInputStream, DynOutputStream, DynPollable};
use wasmtime_wasi_http::p2::bindings::http::outgoing_handler;
use wasmtime_wasi_http::p2::bindings::http::types::{
    self, ErrorCode, Fields, FutureIncomingResponse, FutureTrailers, HeaderError, IncomingBody,
    IncomingRequest, IncomingResponse, Method, OutgoingBody, OutgoingRequest, OutgoingResponse,
    RequestOptions, ResponseOutparam, Scheme,
};
use wasmtime_wasi_http::p2::{self, HttpResult};

use super::super::away;
use super::super::functions::Halt;
use super::super::wire::{Reader, Wire};
use super::lent;
use crate::state::State;

/// What a change of fields comes to.
type Fielded<T> = Result<T, HeaderError>;

/// A field, by its name and value.
type Field = (String, Vec<u8>);

/// An answer, once it is there; without one where it was taken already.
type Awaited<T> = Option<Result<Result<T, ErrorCode>, ()>>;

fn fielded<T>(state: &mut State, answer: p2::HeaderResult<T>) -> wasmtime::Result<Fielded<T>> {
    Ok(match answer {
        Ok(value) => Ok(value),
        Err(error) => Err(types::Host::convert_header_error(&mut state.http(), error)?),
    })
}

fn told<T>(state: &mut State, answer: HttpResult<T>) -> wasmtime::Result<Result<T, ErrorCode>> {
    Ok(match answer {
        Ok(value) => Ok(value),
        Err(error) => Err(types::Host::convert_error_code(&mut state.http(), error)?),
    })
}

interfaces! {
    answer, link |state|
    interface "wasi:http/types@0.2.12" {
        thing "fields" as "fields.drop" (fields: Fields) {
            types::HostFields::drop(&mut state.http(), fields)?;
        }
        thing "incoming-request" as "incoming-request.drop" (request: IncomingRequest) {
            types::HostIncomingRequest::drop(&mut state.http(), request)?;
        }
        thing "outgoing-request" as "outgoing-request.drop" (request: OutgoingRequest) {
            types::HostOutgoingRequest::drop(&mut state.http(), request)?;
        }
        thing "request-options" as "request-options.drop" (options: RequestOptions) {
            types::HostRequestOptions::drop(&mut state.http(), options)?;
        }
        thing "response-outparam" as "response-outparam.drop" (response: ResponseOutparam) {
            types::HostResponseOutparam::drop(&mut state.http(), response)?;
        }
        thing "incoming-response" as "incoming-response.drop" (response: IncomingResponse) {
            types::HostIncomingResponse::drop(&mut state.http(), response)?;
        }
        thing "incoming-body" as "incoming-body.drop" (body: IncomingBody) {
            types::HostIncomingBody::drop(&mut state.http(), body)?;
        }
        thing "future-trailers" as "future-trailers.drop" (trailers: FutureTrailers) {
            types::HostFutureTrailers::drop(&mut state.http(), trailers)?;
        }
        thing "outgoing-response" as "outgoing-response.drop" (response: OutgoingResponse) {
            types::HostOutgoingResponse::drop(&mut state.http(), response)?;
        }
        thing "outgoing-body" as "outgoing-body.drop" (body: OutgoingBody) {
            types::HostOutgoingBody::drop(&mut state.http(), body)?;
        }
        thing "future-incoming-response" as "future-incoming-response.drop" (response: FutureIncomingResponse) {
            types::HostFutureIncomingResponse::drop(&mut state.http(), response)?;
        }
        fn "http-error-code"(error: Resource<wasmtime::Error>) -> Option<ErrorCode> {
            types::Host::http_error_code(&mut state.http(), error)?
        }
        fn "[constructor]fields"() -> Resource<Fields> {
            types::HostFields::new(&mut state.http())?
        }
        fn "[static]fields.from-list"(entries: Vec<Field>) -> Fielded<Resource<Fields>> {
            let made = types::HostFields::from_list(&mut state.http(), entries);
            fielded(state, made)?
        }
        fn "[method]fields.get"(fields: Resource<Fields>, name: String) -> Vec<Vec<u8>> {
            types::HostFields::get(&mut state.http(), fields, name)?
        }
        fn "[method]fields.has"(fields: Resource<Fields>, name: String) -> bool {
            types::HostFields::has(&mut state.http(), fields, name)?
        }
        fn "[method]fields.set"(fields: Resource<Fields>, name: String, values: Vec<Vec<u8>>) -> Fielded<()> {
            let set = types::HostFields::set(&mut state.http(), fields, name, values);
            fielded(state, set)?
        }
        fn "[method]fields.delete"(fields: Resource<Fields>, name: String) -> Fielded<()> {
            let deleted = types::HostFields::delete(&mut state.http(), fields, name);
            fielded(state, deleted)?
        }
        fn "[method]fields.append"(fields: Resource<Fields>, name: String, value: Vec<u8>) -> Fielded<()> {
            let appended = types::HostFields::append(&mut state.http(), fields, name, value);
            fielded(state, appended)?
        }
        fn "[method]fields.entries"(fields: Resource<Fields>) -> Vec<Field> {
            types::HostFields::entries(&mut state.http(), fields)?
        }
        fn "[method]fields.clone"(fields: Resource<Fields>) -> Resource<Fields> {
            types::HostFields::clone(&mut state.http(), fields)?
        }
        fn "[method]incoming-request.method"(request: Resource<IncomingRequest>) -> Method {
            types::HostIncomingRequest::method(&mut state.http(), request)?
        }
        fn "[method]incoming-request.path-with-query"(request: Resource<IncomingRequest>) -> Option<String> {
            types::HostIncomingRequest::path_with_query(&mut state.http(), request)?
        }
        fn "[method]incoming-request.scheme"(request: Resource<IncomingRequest>) -> Option<Scheme> {
            types::HostIncomingRequest::scheme(&mut state.http(), request)?
        }
        fn "[method]incoming-request.authority"(request: Resource<IncomingRequest>) -> Option<String> {
            types::HostIncomingRequest::authority(&mut state.http(), request)?
        }
        fn "[method]incoming-request.headers"(request: Resource<IncomingRequest>) -> Resource<Fields> {
            types::HostIncomingRequest::headers(&mut state.http(), request)?
        }
        fn "[method]incoming-request.consume"(request: Resource<IncomingRequest>) -> Result<Resource<IncomingBody>, ()> {
            types::HostIncomingRequest::consume(&mut state.http(), request)?
        }
        fn "[constructor]outgoing-request"(headers: Resource<Fields>) -> Resource<OutgoingRequest> {
            types::HostOutgoingRequest::new(&mut state.http(), headers)?
        }
        fn "[method]outgoing-request.body"(request: Resource<OutgoingRequest>) -> Result<Resource<OutgoingBody>, ()> {
            types::HostOutgoingRequest::body(&mut state.http(), request)?
        }
        fn "[method]outgoing-request.method"(request: Resource<OutgoingRequest>) -> Method {
            types::HostOutgoingRequest::method(&mut state.http(), request)?
        }
        fn "[method]outgoing-request.set-method"(request: Resource<OutgoingRequest>, method: Method) -> Result<(), ()> {
            types::HostOutgoingRequest::set_method(&mut state.http(), request, method)?
        }
        fn "[method]outgoing-request.path-with-query"(request: Resource<OutgoingRequest>) -> Option<String> {
            types::HostOutgoingRequest::path_with_query(&mut state.http(), request)?
        }
        fn "[method]outgoing-request.set-path-with-query"(request: Resource<OutgoingRequest>, path: Option<String>) -> Result<(), ()> {
            types::HostOutgoingRequest::set_path_with_query(&mut state.http(), request, path)?
        }
        fn "[method]outgoing-request.scheme"(request: Resource<OutgoingRequest>) -> Option<Scheme> {
            types::HostOutgoingRequest::scheme(&mut state.http(), request)?
        }
        fn "[method]outgoing-request.set-scheme"(request: Resource<OutgoingRequest>, scheme: Option<Scheme>) -> Result<(), ()> {
            types::HostOutgoingRequest::set_scheme(&mut state.http(), request, scheme)?
        }
        fn "[method]outgoing-request.authority"(request: Resource<OutgoingRequest>) -> Option<String> {
            types::HostOutgoingRequest::authority(&mut state.http(), request)?
        }
        fn "[method]outgoing-request.set-authority"(request: Resource<OutgoingRequest>, authority: Option<String>) -> Result<(), ()> {
            types::HostOutgoingRequest::set_authority(&mut state.http(), request, authority)?
        }
        fn "[method]outgoing-request.headers"(request: Resource<OutgoingRequest>) -> Resource<Fields> {
            types::HostOutgoingRequest::headers(&mut state.http(), request)?
        }
        fn "[constructor]request-options"() -> Resource<RequestOptions> {
            types::HostRequestOptions::new(&mut state.http())?
        }
        fn "[method]request-options.connect-timeout"(options: Resource<RequestOptions>) -> Option<u64> {
            types::HostRequestOptions::connect_timeout(&mut state.http(), options)?
        }
        fn "[method]request-options.set-connect-timeout"(options: Resource<RequestOptions>, duration: Option<u64>) -> Result<(), ()> {
            types::HostRequestOptions::set_connect_timeout(&mut state.http(), options, duration)?
        }
        fn "[method]request-options.first-byte-timeout"(options: Resource<RequestOptions>) -> Option<u64> {
            types::HostRequestOptions::first_byte_timeout(&mut state.http(), options)?
        }
        fn "[method]request-options.set-first-byte-timeout"(options: Resource<RequestOptions>, duration: Option<u64>) -> Result<(), ()> {
            types::HostRequestOptions::set_first_byte_timeout(&mut state.http(), options, duration)?
        }
        fn "[method]request-options.between-bytes-timeout"(options: Resource<RequestOptions>) -> Option<u64> {
            types::HostRequestOptions::between_bytes_timeout(&mut state.http(), options)?
        }
        fn "[method]request-options.set-between-bytes-timeout"(options: Resource<RequestOptions>, duration: Option<u64>) -> Result<(), ()> {
            types::HostRequestOptions::set_between_bytes_timeout(&mut state.http(), options, duration)?
        }
        fn "[static]response-outparam.set"(place: Resource<ResponseOutparam>, response: Result<Resource<OutgoingResponse>, ErrorCode>) {
            types::HostResponseOutparam::set(&mut state.http(), place, response)?
        }
        fn "[method]incoming-response.status"(response: Resource<IncomingResponse>) -> u16 {
            types::HostIncomingResponse::status(&mut state.http(), response)?
        }
        fn "[method]incoming-response.headers"(response: Resource<IncomingResponse>) -> Resource<Fields> {
            types::HostIncomingResponse::headers(&mut state.http(), response)?
        }
        fn "[method]incoming-response.consume"(response: Resource<IncomingResponse>) -> Result<Resource<IncomingBody>, ()> {
            types::HostIncomingResponse::consume(&mut state.http(), response)?
        }
        fn "[method]incoming-body.stream"(body: Resource<IncomingBody>) -> Result<Resource<DynInputStream>, ()> {
            types::HostIncomingBody::stream(&mut state.http(), body)?
        }
        fn "[static]incoming-body.finish"(body: Resource<IncomingBody>) -> Resource<FutureTrailers> {
            types::HostIncomingBody::finish(&mut state.http(), body)?
        }
        fn "[method]future-trailers.subscribe"(trailers: Resource<FutureTrailers>) -> Resource<DynPollable> {
            types::HostFutureTrailers::subscribe(&mut state.http(), lent(&trailers))?
        }
        fn "[method]future-trailers.get"(trailers: Resource<FutureTrailers>) -> Awaited<Option<Resource<Fields>>> {
            types::HostFutureTrailers::get(&mut state.http(), trailers)?
        }
        fn "[constructor]outgoing-response"(headers: Resource<Fields>) -> Resource<OutgoingResponse> {
            types::HostOutgoingResponse::new(&mut state.http(), headers)?
        }
        fn "[method]outgoing-response.status-code"(response: Resource<OutgoingResponse>) -> u16 {
            types::HostOutgoingResponse::status_code(&mut state.http(), response)?
        }
        fn "[method]outgoing-response.set-status-code"(response: Resource<OutgoingResponse>, status: u16) -> Result<(), ()> {
            types::HostOutgoingResponse::set_status_code(&mut state.http(), response, status)?
        }
        fn "[method]outgoing-response.headers"(response: Resource<OutgoingResponse>) -> Resource<Fields> {
            types::HostOutgoingResponse::headers(&mut state.http(), response)?
        }
        fn "[method]outgoing-response.body"(response: Resource<OutgoingResponse>) -> Result<Resource<OutgoingBody>, ()> {
            types::HostOutgoingResponse::body(&mut state.http(), response)?
        }
        fn "[method]outgoing-body.write"(body: Resource<OutgoingBody>) -> Result<Resource<DynOutputStream>, ()> {
            types::HostOutgoingBody::write(&mut state.http(), body)?
        }
        fn "[static]outgoing-body.finish"(body: Resource<OutgoingBody>, trailers: Option<Resource<Fields>>) -> Result<(), ErrorCode> {
            let finished = types::HostOutgoingBody::finish(&mut state.http(), body, trailers);
            told(state, finished)?
        }
        fn "[method]future-incoming-response.subscribe"(response: Resource<FutureIncomingResponse>) -> Resource<DynPollable> {
            types::HostFutureIncomingResponse::subscribe(&mut state.http(), lent(&response))?
        }
        fn "[method]future-incoming-response.get"(response: Resource<FutureIncomingResponse>) -> Awaited<Resource<IncomingResponse>> {
            types::HostFutureIncomingResponse::get(&mut state.http(), response)?
        }
    }
    interface "wasi:http/outgoing-handler@0.2.12" {
        fn "handle"(request: Resource<OutgoingRequest>, options: Option<Resource<RequestOptions>>) -> Result<Resource<FutureIncomingResponse>, ErrorCode> {
            let handled = outgoing_handler::Host::handle(&mut state.http(), request, options);
            told(state, handled)?
        }
    }
}
