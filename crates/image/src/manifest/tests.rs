use proptest::prelude::*;

use super::*;

fn descriptor(media_type: &str, platform: Option<&str>) -> Descriptor {
    let mut descriptor = Descriptor::new(media_type, Digest::of(platform.unwrap_or("").as_bytes()), 7);
    descriptor.platform = platform.map(|text| text.parse().unwrap());
    descriptor
}

fn index(platforms: &[Option<&str>]) -> Index {
    let manifests = platforms.iter().map(|platform| descriptor(OCI_MANIFEST, *platform)).collect();
    Index { schema_version: 2, media_type: OCI_INDEX.into(), manifests }
}

fn manifest(layer_type: &str) -> Manifest {
    Manifest::new(descriptor(OCI_CONFIG, None), vec![descriptor(layer_type, None)])
}

#[test]
fn the_kind_is_told_by_content_where_no_type_is_stated() {
    let digest = Digest::of(b"");
    let text = format!(
        r#"{{"schemaVersion":2,"config":{{"mediaType":"{OCI_CONFIG}","digest":"{digest}","size":1}},"layers":[]}}"#
    );
    let parsed = Document::parse(text.as_bytes(), Some("application/json; charset=utf-8"), "x").unwrap();
    assert!(matches!(parsed, Document::Manifest(manifest) if manifest.media_type == OCI_MANIFEST));
    let parsed = Document::parse(text.as_bytes(), Some(DOCKER_MANIFEST), "x").unwrap();
    assert!(matches!(parsed, Document::Manifest(manifest) if manifest.media_type == DOCKER_MANIFEST));
    let parsed = Document::parse(br#"{"schemaVersion":2,"manifests":[]}"#, None, "x").unwrap();
    assert!(matches!(parsed, Document::Index(_)));
}

#[test]
fn schema_1_is_refused_by_name() {
    let text = br#"{"schemaVersion":1,"name":"a","fsLayers":[]}"#;
    assert!(matches!(Document::parse(text, None, "x"), Err(Error::Schema1 { .. })));
    let signed = "application/vnd.docker.distribution.manifest.v1+prettyjws";
    assert!(matches!(
        Document::parse(br#"{"schemaVersion":2}"#, Some(signed), "x"),
        Err(Error::Schema1 { .. })
    ));
}

#[test]
fn a_document_that_is_both_manifest_and_index_is_refused() {
    let text = br#"{"schemaVersion":2,"manifests":[],"layers":[]}"#;
    assert!(matches!(Document::parse(text, None, "x"), Err(Error::NotAnImage { .. })));
    let text = format!(r#"{{"schemaVersion":2,"mediaType":"{OCI_MANIFEST}","manifests":[]}}"#);
    assert!(matches!(Document::parse(text.as_bytes(), None, "x"), Err(Error::NotAnImage { .. })));
}

#[test]
fn the_best_platform_of_an_index_is_chosen() {
    let index =
        index(&[Some("linux/arm64"), Some("linux/arm/v6"), Some("linux/arm/v7"), Some("unknown/unknown")]);
    let chosen = index.select(&"linux/arm/v7".parse().unwrap(), "x").unwrap();
    assert_eq!(chosen.digest, Digest::of(b"linux/arm/v7"));
    let Err(Error::WrongPlatform { offered, .. }) = index.select(&"linux/s390x".parse().unwrap(), "x") else {
        panic!()
    };
    let offered: Vec<_> = offered.iter().map(ToString::to_string).collect();
    assert_eq!(offered, ["linux/arm/v6", "linux/arm/v7", "linux/arm64"]);
}

#[test]
fn an_index_that_states_no_platform_leaves_it_to_the_image() {
    let unstated = index(&[None]);
    assert!(unstated.select(&Platform::host(), "x").is_ok());
    assert!(index(&[None, Some("linux/other")]).select(&Platform::host(), "x").is_err());
    assert!(index(&[]).select(&Platform::host(), "x").is_err());
}

#[test]
fn layers_that_cannot_be_used_are_refused_before_they_are_fetched() {
    let limits = Limits::default();
    for good in [OCI_LAYER, "application/vnd.docker.image.rootfs.diff.tar.gzip", &format!("{OCI_LAYER}+zstd")]
    {
        manifest(good).check(&limits, "x").unwrap();
    }
    let foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
    assert!(matches!(manifest(foreign).check(&limits, "x"), Err(Error::ForeignLayer { .. })));
    let encrypted = format!("{OCI_LAYER}+gzip+encrypted");
    assert!(matches!(manifest(&encrypted).check(&limits, "x"), Err(Error::UnsupportedLayer { .. })));
    let mut chart = manifest(OCI_LAYER);
    chart.config.media_type = "application/vnd.cncf.helm.config.v1+json".into();
    assert!(matches!(chart.check(&limits, "x"), Err(Error::NotAnImage { .. })));
}

#[test]
fn what_exceeds_a_limit_is_refused() {
    let mut many = manifest(OCI_LAYER);
    many.layers = vec![many.layers[0].clone(); 257];
    assert!(matches!(many.check(&Limits::default(), "x"), Err(Error::Limit { field: "layers", .. })));
    let mut large = manifest(OCI_LAYER);
    large.config.size = u64::MAX;
    assert!(matches!(large.check(&Limits::default(), "x"), Err(Error::Limit { .. })));
    large = manifest(OCI_LAYER);
    large.layers[0].size = u64::MAX;
    assert!(matches!(large.check(&Limits::default(), "x"), Err(Error::Limit { .. })));
}

proptest! {
    #[test]
    fn no_document_makes_the_parser_panic(text in r#"[{}\[\]":,a-zA-Z0-9 ]{0,80}"#) {
        let _ = Document::parse(text.as_bytes(), None, "x");
    }
}
