//! Names of languages as data sets write them.

/// The ISO 639-1 code of a language named in English (`German`), in any case; other text, such as
/// a code, is returned as it is. The names are those that speech models of 2025 print.
pub(super) fn code(name: &str) -> String {
    let known = [
        ("arabic", "ar"),
        ("cantonese", "yue"),
        ("chinese", "zh"),
        ("czech", "cs"),
        ("danish", "da"),
        ("dutch", "nl"),
        ("english", "en"),
        ("filipino", "fil"),
        ("finnish", "fi"),
        ("french", "fr"),
        ("german", "de"),
        ("greek", "el"),
        ("hindi", "hi"),
        ("hungarian", "hu"),
        ("indonesian", "id"),
        ("italian", "it"),
        ("japanese", "ja"),
        ("korean", "ko"),
        ("macedonian", "mk"),
        ("malay", "ms"),
        ("persian", "fa"),
        ("polish", "pl"),
        ("portuguese", "pt"),
        ("romanian", "ro"),
        ("russian", "ru"),
        ("spanish", "es"),
        ("swedish", "sv"),
        ("thai", "th"),
        ("turkish", "tr"),
        ("vietnamese", "vi"),
    ];
    let lower = name.to_lowercase();
    known
        .iter()
        .find(|(known, _)| *known == lower)
        .map_or_else(|| name.to_owned(), |(_, code)| (*code).to_owned())
}
