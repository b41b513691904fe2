//! The OpenAPI document, made from the same constants the handlers use.

use flexfs_wire::token::TokenKind;
use utoipa::openapi::path::{HttpMethod, OperationBuilder, Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, Schema, SchemaType, Type};
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{
    Components, Content, Info, OpenApi, OpenApiBuilder, PathItem, PathsBuilder, Ref, RefOr, Required,
    Response, ResponseBuilder,
};
use utoipa::{PartialSchema as _, ToSchema as _};

use crate::noun::{Account, BlockStore, MetaStore, Provider, Region, Volume, VolumeToken};
use crate::problem::Problem;
use crate::table::{FieldKind, Noun};
use crate::token::TokenInfo;

/// The document.
pub(crate) fn document() -> OpenApi {
    let mut components = Components::new();
    for kind in TokenKind::ALL {
        let http = Http::new(HttpAuthScheme::Bearer);
        components.security_schemes.insert(format!("{kind}Token"), SecurityScheme::Http(http).into());
    }
    components.schemas.insert(Problem::name().into(), Problem::schema());
    components.schemas.insert(TokenInfo::name().into(), TokenInfo::schema());
    let mut paths = PathsBuilder::new();
    noun::<Account>(&mut paths, &mut components, true);
    noun::<Provider>(&mut paths, &mut components, false);
    noun::<Region>(&mut paths, &mut components, false);
    noun::<BlockStore>(&mut paths, &mut components, false);
    noun::<MetaStore>(&mut paths, &mut components, true);
    noun::<Volume>(&mut paths, &mut components, false);
    noun::<VolumeToken>(&mut paths, &mut components, true);
    services(&mut paths);
    let info = Info::new("flexfs admin", env!("CARGO_PKG_VERSION"));
    OpenApiBuilder::new().info(info).paths(paths.build()).components(Some(components)).build()
}

/// The five verbs of a noun, and `rotate`.
fn noun<N: Noun>(paths: &mut PathsBuilder, components: &mut Components, rotates: bool) {
    let name = N::name().to_string();
    let body = format!("{name}Body");
    components.schemas.insert(name.clone(), N::schema());
    components.schemas.insert(body.clone(), RefOr::T(body_schema::<N>()));
    let path = format!("/v1/configure/{}", N::PATH);
    let one =
        if N::PATH == "regions" { format!("{path}/{{provider}}/{{code}}") } else { format!("{path}/{{id}}") };
    let keys = || {
        let names: &[&str] = if N::PATH == "regions" { &["provider", "code"] } else { &["id"] };
        names.iter().map(|name| parameter(name, ParameterIn::Path, "Key or name.")).collect::<Vec<_>>()
    };
    let operation = |summary: String| {
        OperationBuilder::new()
            .tag(N::PATH)
            .summary(Some(summary))
            .security(SecurityRequirement::new("accountToken", Vec::<String>::new()))
            .response("default", problem())
    };
    let filters =
        [("limit", "Rows of a page, 1 to 1000."), ("after", "Value of x-flexfs-next of the page before.")]
            .into_iter()
            .chain(N::FILTERS.iter().map(|(name, _)| (*name, "Only rows that equal this.")))
            .map(|(name, text)| parameter(name, ParameterIn::Query, text));
    let many = ArrayBuilder::new().items(Ref::from_schema_name(&name)).build();
    let list = operation(format!("List {}.", N::PATH))
        .parameters(Some(filters))
        .response("200", answer("One page, ordered by key.", Some(RefOr::T(many.into()))));
    let entity = || Some(RefOr::Ref(Ref::from_schema_name(&name)));
    let create = operation(format!("Create a {}.", N::NOUN)).request_body(Some(request(&body))).response(
        "200",
        answer("The new object; a token made with it is shown here and never again.", entity()),
    );
    add(paths, &path, HttpMethod::Get, list);
    add(paths, &path, HttpMethod::Post, create);
    let show = operation(format!("Show a {}.", N::NOUN)).response("200", answer("The object.", entity()));
    let update = operation(format!("Change the given fields of a {}.", N::NOUN))
        .request_body(Some(request(&body)))
        .response("204", answer("Done.", None));
    let delete = operation(format!("Delete a {}.", N::NOUN)).response("204", answer("Done.", None));
    for (method, verb) in [(HttpMethod::Get, show), (HttpMethod::Put, update), (HttpMethod::Delete, delete)] {
        add(paths, &one, method, verb.parameters(Some(keys())));
    }
    if rotates {
        let overlap =
            ObjectBuilder::new().property("overlapSeconds", ObjectBuilder::new().schema_type(Type::Integer));
        let rotate = operation(format!("A new token for a {}; the old one ends after the overlap.", N::NOUN))
            .parameters(Some(keys()))
            .request_body(Some(json_body(RefOr::T(overlap.build().into()))))
            .response("200", answer("tokenId, token (shown once), oldEndsAt.", None));
        add(paths, &format!("{one}/rotate"), HttpMethod::Post, rotate);
    }
}

/// What is not a noun.
fn services(paths: &mut PathsBuilder) {
    let list: [(&str, HttpMethod, Option<TokenKind>, &str); 10] = [
        (
            "/v1/configure/audit",
            HttpMethod::Get,
            Some(TokenKind::Account),
            "The audit log, the newest first: since, before, limit, account, token, peer, action, noun, key.",
        ),
        (
            "/v1/configure/volumes/{id}/key",
            HttpMethod::Get,
            Some(TokenKind::Account),
            "Key of an encrypted volume, under its secret.",
        ),
        (
            "/v1/configure/volumes/{id}/key",
            HttpMethod::Put,
            Some(TokenKind::Account),
            "Another wrapping of the key: wrappedKey, and was, the one it was made of.",
        ),
        (
            "/v1/volumes/for-token",
            HttpMethod::Get,
            Some(TokenKind::Volume),
            "Settings and metadata server of a volume.",
        ),
        ("/v1/tokens/validate", HttpMethod::Post, Some(TokenKind::Meta), "Check a client's volume token."),
        (
            "/v1/events",
            HttpMethod::Get,
            Some(TokenKind::Meta),
            "Standing stream of JSON lines: a snapshot, then changes.",
        ),
        (
            "/v1/certificates/meta",
            HttpMethod::Post,
            Some(TokenKind::Meta),
            "Sign a request (PEM) for the role meta.",
        ),
        ("/v1/openapi.json", HttpMethod::Get, None, "This document."),
        ("/metrics", HttpMethod::Get, None, "Metrics, in the text form of Prometheus."),
        ("/healthz", HttpMethod::Get, None, "Whether admin can read its tables."),
    ];
    for (path, method, kind, summary) in list {
        let mut operation = OperationBuilder::new()
            .tag("services")
            .summary(Some(summary))
            .response("200", answer(summary, None))
            .response("default", problem());
        if let Some(kind) = kind {
            operation =
                operation.security(SecurityRequirement::new(format!("{kind}Token"), Vec::<String>::new()));
        }
        add(paths, path, method, operation);
    }
}

fn add(paths: &mut PathsBuilder, path: &str, method: HttpMethod, operation: OperationBuilder) {
    let taken = std::mem::take(paths);
    *paths = taken.path(path, PathItem::new(method, operation));
}

fn body_schema<N: Noun>() -> Schema {
    let mut object = ObjectBuilder::new();
    for field in N::FIELDS {
        let kind: SchemaType = match field.kind {
            FieldKind::Text => Type::String.into(),
            FieldKind::Number => Type::Integer.into(),
            FieldKind::Flag => Type::Boolean.into(),
            FieldKind::Object => Type::Object.into(),
            FieldKind::Flags => SchemaType::Array(vec![Type::Object, Type::String]),
        };
        let text =
            if field.needed { format!("{} Needed for creation.", field.doc) } else { field.doc.to_owned() };
        object = object.property(field.name, ObjectBuilder::new().schema_type(kind).description(Some(text)));
    }
    object.build().into()
}

fn parameter(name: &str, place: ParameterIn, text: &str) -> Parameter {
    let required = if place == ParameterIn::Path { Required::True } else { Required::False };
    ParameterBuilder::new()
        .name(name)
        .parameter_in(place)
        .required(required)
        .description(Some(text))
        .schema(Some(ObjectBuilder::new().schema_type(Type::String)))
        .build()
}

fn request(schema: &str) -> utoipa::openapi::request_body::RequestBody {
    json_body(RefOr::Ref(Ref::from_schema_name(schema)))
}

fn json_body(schema: RefOr<Schema>) -> utoipa::openapi::request_body::RequestBody {
    RequestBodyBuilder::new().content("application/json", Content::new(Some(schema))).build()
}

fn answer(text: &str, schema: Option<RefOr<Schema>>) -> Response {
    let response = ResponseBuilder::new().description(text);
    match schema {
        Some(schema) => response.content("application/json", Content::new(Some(schema))).build(),
        None => response.build(),
    }
}

fn problem() -> Response {
    let schema = RefOr::Ref(Ref::from_schema_name(Problem::name()));
    ResponseBuilder::new()
        .description("A problem document.")
        .content("application/problem+json", Content::new(Some(schema)))
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reference_resolves() {
        let text = document().to_json().unwrap();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        for piece in text.split("\"#/components/schemas/").skip(1) {
            let name = piece.split('"').next().unwrap();
            assert!(value["components"]["schemas"][name].is_object(), "{name}");
        }
        let rotate = &value["paths"]["/v1/configure/volume-tokens/{id}/rotate"]["post"];
        assert!(rotate.is_object());
        assert_eq!(value["paths"]["/v1/configure/volumes"].as_object().unwrap().len(), 2);
    }
}
