use super::*;
use crate::{init::Init, ragged::Offsets, weights::host};

fn model(window: Option<usize>) -> CausalLm {
    let config: TransformerConfig = serde_json::from_value(serde_json::json!({
        "d_model": 16, "n_layers": 3, "n_heads": 4, "n_kv_heads": 2, "d_ff": 24,
        "qk_norm": true, "window": window,
    }))
    .unwrap();
    config.init(30, &Init::new(5, &Device::flex()))
}

fn packed(lm: &CausalLm, sequences: &[&[u32]]) -> Ragged {
    let lengths: Vec<usize> = sequences.iter().map(|ids| ids.len()).collect();
    Ragged { values: lm.embed(&sequences.concat()), offsets: Offsets::from_lengths(&lengths) }
}

fn rows(hidden: Tensor<2>) -> Vec<Vec<f32>> {
    let [_, width] = hidden.dims();
    host(hidden).chunks(width).map(<[f32]>::to_vec).collect()
}

fn assert_close(a: &[Vec<f32>], b: &[Vec<f32>]) {
    assert_eq!(a.len(), b.len());
    for (a, b) in a.concat().into_iter().zip(b.concat()) {
        assert!((a - b).abs() < 1e-5, "{a} and {b}");
    }
}

#[test]
fn tails_are_the_last_rows_of_whole_sequences() {
    for window in [None, Some(3)] {
        let lm = model(window);
        let input = packed(&lm, &[&[1, 2, 3, 4, 5], &[6], &[7, 8, 9]]);
        let whole = rows(lm.forward(&input, &[], Dropout::OFF).last);
        let tails = rows(lm.forward_tails(&input, &[2, 1, 3], Dropout::OFF));
        let expected: Vec<Vec<f32>> = [3, 4, 5, 6, 7, 8].map(|i: usize| whole[i].clone()).into();
        assert_close(&tails, &expected);
    }
}

#[test]
#[should_panic(expected = "a tail is longer than its sequence")]
fn a_tail_beyond_its_sequence_is_refused() {
    let lm = model(None);
    lm.forward_tails(&packed(&lm, &[&[1, 2]]), &[3], Dropout::OFF);
}

#[test]
fn forks_of_a_cache_go_on_as_whole_sequences_do() {
    for window in [None, Some(3)] {
        let lm = model(window);
        let heads: [&[u32]; 2] = [&[1, 2, 3, 4], &[5, 6]];
        let mut cache = lm.cache(&[4, 2]);
        lm.extend_to_last(&packed(&lm, &heads), &[0, 1], &mut cache);
        // Two go on from the second head, one from the first, one of them with room to spare.
        let (parents, tails): ([usize; 3], [&[u32]; 3]) =
            ([1, 0, 1], [&[7, 8, 9], &[10], &[11, 12]]);
        let mut forks = cache.fork(&parents, &[5, 7, 4]);
        assert_eq!([0, 1, 2].map(|i| forks.length(i)), [2, 4, 2]);
        let found = rows(lm.extend(&packed(&lm, &tails), &[0, 1, 2], &mut forks));
        let whole: Vec<Vec<u32>> =
            parents.iter().zip(tails).map(|(&i, tail)| [heads[i], tail].concat()).collect();
        let whole: Vec<&[u32]> = whole.iter().map(Vec::as_slice).collect();
        let n_tails = tails.map(<[u32]>::len);
        let expected = rows(lm.forward_tails(&packed(&lm, &whole), &n_tails, Dropout::OFF));
        assert_close(&found, &expected);
        // The parent goes on as if nobody had left.
        let mut cache = lm.cache(&[6, 4]);
        lm.extend_to_last(&packed(&lm, &heads), &[0, 1], &mut cache);
        let mut forks = cache.fork(&parents, &[5, 7, 4]);
        let more: [&[u32]; 2] = [&[13], &[14, 15]];
        lm.extend(&packed(&lm, &tails), &[0, 1, 2], &mut forks);
        let found = rows(lm.extend(&packed(&lm, &more), &[0, 1], &mut cache));
        let whole = [[heads[0], more[0]].concat(), [heads[1], more[1]].concat()];
        let whole = [whole[0].as_slice(), whole[1].as_slice()];
        let expected = rows(lm.forward_tails(&packed(&lm, &whole), &[1, 2], Dropout::OFF));
        assert_close(&found, &expected);
    }
}

#[test]
fn gradients_through_tails_are_those_through_all_rows() {
    let lm = model(None);
    let lm = crate::weights::to_autodiff(lm);
    let input = packed(&lm, &[&[1, 2, 3], &[4, 5]]);
    let leaf =
        Tensor::<2>::from_data(input.values.inner().into_data(), &lm.device()).require_grad();
    let input = Ragged { values: leaf.clone(), offsets: input.offsets };
    let slope = |hidden: Tensor<2>| {
        let gradients = hidden.powf_scalar(2.0).sum().backward();
        rows(leaf.grad(&gradients).expect("a leaf"))
    };
    let tails = slope(lm.forward_tails(&input, &[1, 2], Dropout::OFF));
    let all = lm.forward(&input, &[], Dropout::OFF).last;
    assert_close(&tails, &slope(ops::embedding(all, &[2, 3, 4])));
}

#[test]
fn what_is_left_out_is_what_it_stands_for() {
    let short = TransformerConfig { n_kv_heads: None, ..TransformerConfig::tiny() };
    let long = TransformerConfig { n_kv_heads: Some(2), d_head: Some(4), ..short.clone() };
    assert!(short != long && short.computes_as(&long) && long.computes_as(&short));
    assert!(!short.computes_as(&TransformerConfig { rope_theta: 9.0, ..long.clone() }));
    assert!(!short.computes_as(&TransformerConfig { n_kv_heads: Some(1), ..long }));
}
