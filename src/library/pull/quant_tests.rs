//! Repositories as they are, and what is chosen of them.

use proptest::prelude::*;

use super::{RepoFile, choose};

fn files(paths: &[&str]) -> Vec<RepoFile> {
    paths.iter().map(|path| RepoFile { path: (*path).into(), size: 1, digest: None }).collect()
}

fn chosen(paths: &[&str], wanted: Option<&str>) -> Result<(String, Vec<String>, Option<String>), String> {
    let choice = choose("org/repo", &files(paths), wanted).map_err(|error| error.to_string())?;
    let paths = choice.files.into_iter().map(|file| file.path).collect();
    Ok((choice.label, paths, choice.projector.map(|file| file.path)))
}

const PLAIN: &[&str] = &["README.md", "M-Q8_0.gguf", "M-Q4_K_M.gguf", "M-IQ2_XXS.gguf", "M.imatrix.gguf"];

#[test]
fn a_quantisation_is_chosen_by_label_by_file_or_by_what_is_usual() {
    let q4 = Ok(("Q4_K_M".into(), vec!["M-Q4_K_M.gguf".into()], None));
    for wanted in [None, Some("q4_k_m"), Some("Q4_K_M"), Some("M-Q4_K_M.gguf"), Some("m-q4_k_m")] {
        assert_eq!(chosen(PLAIN, wanted), q4);
    }
    assert_eq!(chosen(PLAIN, Some("Q8_0")).expect("there").0, "Q8_0");
    assert_eq!(chosen(&["model.gguf"], None).expect("the only one").0, "model");
    assert_eq!(chosen(&["M-UD-Q4_K_XL.gguf", "M-F16.gguf"], None).expect("usual").0, "UD-Q4_K_XL");
    assert_eq!(chosen(&["M-fp16.gguf", "M-IQ1_S.gguf"], None).expect("usual").0, "FP16");
    assert_eq!(chosen(&["Q8_0.gguf", "Q2_K.gguf"], Some("q2_k")).expect("named after it alone").0, "Q2_K");
}

#[test]
fn what_is_missing_is_answered_with_what_is_there() {
    let error = chosen(PLAIN, Some("Q5_K_M")).expect_err("not there");
    assert_eq!(error, "org/repo has no quantization or file \"Q5_K_M\"; there are: IQ2_XXS, Q4_K_M, Q8_0");
    assert!(chosen(&["model.safetensors"], None).expect_err("no model").contains("-GGUF"));
    let twins = &["a-Q4_K_M.gguf", "b-Q4_K_M.gguf"];
    assert!(chosen(twins, None).expect_err("two").contains("a-Q4_K_M, b-Q4_K_M"));
    assert_eq!(chosen(twins, Some("b-Q4_K_M")).expect("named").1, ["b-Q4_K_M.gguf"]);
    assert!(chosen(&["a-IQ1_S.gguf", "a-IQ2_S.gguf"], None).expect_err("none is usual").contains("IQ1_S, IQ2_S"));
}

#[test]
fn no_two_files_of_a_repository_are_called_the_same() {
    let twins = &["a-Q4_K_M.gguf", "b-Q4_K_M.gguf", "b-Q8_0.gguf"];
    let label = |paths, wanted| chosen(paths, Some(wanted)).expect("named").0;
    assert_eq!([label(twins, "a-Q4_K_M"), label(twins, "b-Q4_K_M.gguf")], ["a-Q4_K_M", "b-Q4_K_M"]);
    assert_eq!(label(twins, "q8_0"), "Q8_0", "the only one");
    assert_eq!(label(&["x/m-Q4_0.gguf", "y/m-Q4_0.gguf"], "y/m-Q4_0"), "y-m-Q4_0");
}

#[test]
fn all_shards_come_and_none_may_be_missing() {
    let paths = &["Q4_K_M/M-00002-of-00003.gguf", "Q4_K_M/M-00001-of-00003.gguf", "Q4_K_M/M-00003-of-00003.gguf"];
    let (label, files, _) = chosen(paths, None).expect("whole");
    assert_eq!((label.as_str(), files.len()), ("Q4_K_M", 3));
    assert!(files.is_sorted());
    assert_eq!(chosen(paths, Some("M-00002-of-00003.gguf")).expect("by any of its files").1.len(), 3);
    let shouted = &["M-Q8_0-00001-OF-00002.GGUF", "M-Q8_0-00002-OF-00002.GGUF"];
    assert_eq!(chosen(shouted, None).expect("whole").1.len(), 2);
    let error = chosen(&paths[..2], None).expect_err("one is missing");
    assert!(error.contains("part 00003 of 3"), "{error}");
}

#[test]
fn the_projector_comes_along_in_the_best_format() {
    let paths = &["M-Q4_K_M.gguf", "mmproj-M-Q8_0.gguf", "mmproj-M-f16.gguf", "mmproj-M-bf16.gguf"];
    assert_eq!(chosen(paths, None).expect("there").2.as_deref(), Some("mmproj-M-f16.gguf"));
    assert_eq!(chosen(&["M.gguf", "mmproj-model.gguf"], None).expect("there").2.as_deref(), Some("mmproj-model.gguf"));
}

proptest! {
    #[test]
    fn no_listing_makes_it_panic(paths in prop::collection::vec("[a-zA-Z0-9/._é-]{0,30}(\\.gguf|\\.GGUF)?", 0..6),
                                 wanted in prop::option::of(".{0,10}")) {
        let listed: Vec<&str> = paths.iter().map(String::as_str).collect();
        if let Ok((_, files, _)) = chosen(&listed, wanted.as_deref()) {
            prop_assert!(!files.is_empty() && files.iter().all(|file| paths.contains(file)));
        }
    }
}
