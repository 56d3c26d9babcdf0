"""The mutants that `mutations` plants: one wrong line each, and the fast test that must notice.

`old` stands exactly once in its file (tests/test_mutants.py holds that at every commit). `test` is a file or node id
below tests/. Neither learning curves (`LEARNING`) nor fixed hashes are among them.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """A patch of one place, and the test that must fail with it."""

    name: str
    file: str
    old: str
    new: str
    test: str


@dataclass(frozen=True)
class Impossible:
    """A mistake that cannot be made here, and the code that rules it out."""

    name: str
    file: str
    line: str  # a fragment that stands exactly once in the file
    reason: str


#: Learning curves: never run, so that they kill nothing.
LEARNING = (
    "test_algorithms.py::test_every_row_learns",
    "test_algorithms.py::test_a_strong_kl_in_the_loss_keeps_the_policy_at_its_start",
    "test_algorithms.py::test_the_kl_regularised_optimum_is_reached_from_below",
    "test_algorithms.py::test_a_flipped_reward_is_minimised",
    "test_mlp.py::test_truncation_bootstraps_and_termination_does_not",
    "test_sft.py::test_it_learns_and_train_starts_from_it",
    "test_train.py::test_it_learns_to_copy_and_a_shuffled_reward_teaches_nothing",
    "test_train.py::test_a_strong_kl_penalty_keeps_the_policy_at_its_start",
)

_LM, _CACHE, _ROLLOUT, _TRAIN = "agents/lm.py", "agents/cache.py", "agents/rollout.py", "agents/train.py"
_SAMPLER, _FORWARD = "agents/sampler.py", "agents/forward.py"
_CHECKS = "agents/selfchecks.py"
_UPDATE, _RETURNS, _LOSSES, _MLP = "agents/update.py", "agents/returns.py", "agents/losses.py", "agents/mlp.py"
_PAGE, _CURVES, _REPORT_CHECKS = "agents/report/page.py", "agents/report/run_data.py", "agents/report/checks.py"
_EPISODES, _JS = "agents/report/episodes.py", "agents/report/assets/"
_RUNNER, _JOBS, _TABLES = "agents/benchmark/runner.py", "agents/benchmark/jobs.py", "agents/benchmark/tables.py"
_STATISTICS = "agents/statistics.py"
_SAME = "test_lm.py::test_sampled_log_probs_equal_the_updates"
_FORMULA = "test_update.py::test_the_whole_loss_has_the_gradient_of_its_formula"
_PARTS = "test_update.py::test_gradients_do_not_depend_on_micro_batches"
_SHUFFLE = "test_train.py::test_every_epoch_of_every_update_has_its_own_shuffle"
_OWN = "test_forward.py::test_an_updates_numbers_and_gradients_are_the_models_own"
_RESUME = "test_train.py::test_resuming_equals_the_straight_run_bit_for_bit"
_IMITATION = "test_replay.py::test_imitated_episodes_add_their_own_term_and_nothing_else"
_CUT = "test_rollout.py::test_bootstrap_is_the_value_of_the_last_state_when_cut_from_outside"
_KL_GRADIENT = "test_gradient.py::test_kl_in_the_loss_is_biased_as_its_docs_say"
_DETACHED = "test_mutants.py::test_losses_differentiate_what_learns_and_nothing_else"

#: It must die while its module is imported: the proof that the patched copy is what the tests import.
SANITY = Mutant("sanity: no import", _RETURNS, "import torch\n", "raise RuntimeError\n", "test_returns.py")

# fmt: off
MUTANTS = (
    # Positions and the token shift.
    Mutant("position_ids dropped while sampling", _SAMPLER, "                position_ids=positions,\n", "",
           "test_cache.py::test_sampled_log_probs_are_the_updates_for_every_kind"),
    Mutant("own forward: positions count all rows alike", _FORWARD, "torch.embedding(places, positions)",
           "torch.embedding(places, positions.sort().values)", _SAME),
    Mutant("own forward: keys turned, queries not", _FORWARD, "for z in (query, key))", "for z in (key, key))", _OWN),
    Mutant("own forward: kept for a model that has got a hook", _FORWARD,
           ' or any(map(state.get, _HOOKS))', "",
           "test_forward.py::test_a_model_that_computes_something_else_runs_itself"),
    Mutant("positions begin at 1 in the update", _LM, "torch.arange(tokens.shape[1], device=self.device)[None]",
           "torch.arange(1, tokens.shape[1] + 1, device=self.device)[None]", _OWN),
    Mutant("own forward: positions begin at 1 in the update", _FORWARD, "torch.arange(tokens.shape[1]).repeat(",
           "torch.arange(1, tokens.shape[1] + 1).repeat(", _OWN),
    Mutant("own forward: beginnings that end alike are one", _FORWARD,
           "np.logical_or.accumulate(tokens[1:] != tokens[:-1], 1)", "tokens[1:] != tokens[:-1]", _OWN),
    Mutant("own forward: a beginning's place is another row's", _FORWARD, "order[row] * w + t", "row * w + t", _OWN),
    Mutant("own forward: updates see what comes after", _FORWARD, "is_causal=True", "is_causal=False",
           _OWN),
    Mutant("own forward: updates keep other tokens", _FORWARD, "x.index_select(0, self.kept)", "x[: len(self.kept)]",
           _OWN),
    Mutant("logits shifted by one in the update", _LM, "rollout.positions[rows][row, t] - first[row] - 1",
           "rollout.positions[rows][row, t] - first[row]", _SAME),
    # Temperature, legal masks and the sampled distribution, each on one side only.
    Mutant("temperature in the update only", _LM, "self._log_probs(hidden[part], allowed)",
           "self._log_probs(hidden[part] * self.temperature, allowed)", _SAME),
    Mutant("temperature in sampling only", _LM, "self._logits(hidden[part],",
           "self._logits(hidden[part] * self.temperature,", _SAME),
    Mutant("temperature not in the reference", _LM, "return copy.deepcopy(self, frozen).requires_grad_(False)",
           "frozen = copy.deepcopy(self, frozen).requires_grad_(False); frozen.temperature = 1.0; return frozen",
           "test_mutants.py::test_temperature_divides_the_logits_and_the_reference_has_it"),
    Mutant("temperature multiplies on both sides", _LM, "logits / self.temperature", "logits * self.temperature",
           "test_mutants.py::test_temperature_divides_the_logits_and_the_reference_has_it"),
    Mutant("the run's temperature ignored", _TRAIN, "seed=config.seed, temperature=config.temperature, **kwargs",
           "seed=config.seed, **kwargs", "test_mutants.py::test_a_run_has_its_temperature"),
    Mutant("legal mask in the update only", _LM, "allowed = None if legal is None",
           "allowed = None if True", _SAME),
    Mutant("legal mask in sampling only", _LM, "legal = None if rollout.legal is None else",
           "legal = None if True else", _SAME),
    Mutant("mlp: legal mask ignored", _MLP, "logits = logits.masked_fill(~legal, -torch.inf)", "pass",
           "test_mlp.py::test_sampler_and_update_agree_and_masks_hold"),
    Mutant("mlp: legal mask in sampling only", _MLP, "legal = None if rollout.legal is None else",
           "legal = None if True else", "test_mutants.py::test_the_perceptrons_update_keeps_to_the_masks"),
    Mutant("top-k leaks into sampling, at transformers' default of 50", _SAMPLER, "cdf = log_probs.exp()",
           "top = log_probs.topk(min(50, log_probs.shape[-1])).values\n"
           "        cdf = log_probs.masked_fill(log_probs < top[:, -1:], -torch.inf).exp()",
           "test_mutants.py::test_every_token_of_a_large_vocabulary_is_sampled"),
    Mutant("a forbidden token at a uniform of 0", _SAMPLER, "cdf[:, -1:], right=True)", "cdf[:, -1:])",
           "test_mutants.py::test_a_uniform_of_zero_never_gives_a_forbidden_token"),
    Mutant("dropout on in training mode", _LM, "super().train(False)", "super().train(mode)", "test_lm.py"),
    Mutant("dropout rates kept from the configuration", "agents/pretrained.py", "setattr(config, name, 0.0)", "pass",
           "test_lm.py::test_dropout_is_off_even_in_training_mode"),
    Mutant("lora: dropout on", "agents/lora.py", "lora_dropout=0.0,", "lora_dropout=0.1,",
           "test_lora.py::test_what_is_sampled_is_what_is_updated"),
    Mutant("lora: the reference is the adapter off", _LM, "return copy.deepcopy(self, frozen).requires_grad_(False)",
           "frozen = copy.deepcopy(self, frozen).requires_grad_(False)\n"
           "        [x.enable_adapters(False) for x in frozen.modules() if hasattr(x, 'lora_A')]\n"
           "        return frozen",
           "test_lora.py::test_the_reference_is_the_adapter_at_the_start_not_the_base"),
    Mutant("the reference moves with the policy", _LM, "return copy.deepcopy(self, frozen).requires_grad_(False)",
           "return self", "test_lora.py::test_the_reference_is_the_adapter_at_the_start_not_the_base"),
    # The cache.
    Mutant("stale cache after a refill: the row goes on where it was", _SAMPLER,
           "np.where(fresh, 0, self.fed[rows])", "self.fed[rows]", _SAME),
    Mutant("stale cache after a refill: the old episode's keys stay visible", _CACHE,
           "[most - 1 - positions[:, None]]", "[0 * positions[:, None]]",
           "test_cache.py::test_rows_at_different_positions_restarting_and_sitting_out"),
    Mutant("rows that sit out lose what they have", _SAMPLER,
           "begins[rows], lengths[rows] = starts, 1", "begins[rows], lengths[:] = starts, 1",
           "test_sampler.py::test_rows_that_sit_out_keep_what_they_have_and_of_few_no_key_is_copied"),
    # Padding and masks.
    Mutant("pad == end token in the observation", "textenvs/rules.py",
           "row = np.full(self.width, self.num_tokens, dtype=np.int64)",
           "row = np.full(self.width, self.vocab.eos_id, dtype=np.int64)", _SAME),
    Mutant("loss mask inferred from ids: the end token does not learn", _ROLLOUT,
           "mask=scatter(np.ones(len(at[0]), bool)),", 'mask=scatter(flat["actions"] != flat["actions"].max()),',
           "test_rollout.py::test_every_episode_is_the_env_replayed_alone"),
    Mutant("unmasked mean", _RETURNS, "mask.sum().clamp(min=1)", "mask.numel()", "test_returns.py"),
    Mutant("unmasked sum", _RETURNS, "return torch.where(mask, x, torch.zeros((), dtype=x.dtype)).sum()",
           "return x.sum()", "test_returns.py"),
    Mutant("token mean over the padding too", _LOSSES, '"token_mean": lengths.sum()',
           '"token_mean": torch.tensor(mask.numel())', "test_losses.py"),
    Mutant("whitening over the padding too", _RETURNS, "num_valid = int(mask.sum())", "num_valid = mask.numel()",
           "test_returns.py"),
    Mutant("masked values returned by GAE", _RETURNS,
           "rewards, values = torch.where(mask, rewards, zero), torch.where(mask, values, zero)", "pass",
           "test_returns.py"),
    Mutant("masked slot is GAE's next value", _RETURNS, "next_value = torch.where(chosen, values[:, t], next_value)",
           "next_value = values[:, t]", "test_returns.py"),
    Mutant("masked slot discounts GAE's carry", _RETURNS,
           "carry = torch.where(chosen, delta + gamma * gae_lambda * carry, carry)",
           "carry = delta + gamma * gae_lambda * carry", "test_returns.py"),
    # Rewards, ends and returns.
    Mutant("reward one slot late in the rollout", _ROLLOUT, "dense: dict[str, Any] = {key: scatter(values) for",
           'dense: dict[str, Any] = {key: np.roll(scatter(values), int(key == "rewards"), 1) for',
           "test_rollout.py::test_every_episode_is_the_env_replayed_alone"),
    Mutant("reward one slot late in the update", _UPDATE, "torch.from_numpy(rollout.rewards).float()",
           "torch.from_numpy(np.roll(rollout.rewards, 1, 1)).float()",
           "test_gradient.py::test_expectation_over_all_episodes_is_the_true_gradient"),
    Mutant("truncated treated as terminated in the rollout", _ROLLOUT,
           "cut = done[truncated[done] & ~terminated[done]]", "cut = done[:0]", _CUT),
    Mutant("terminated treated as truncated", _ROLLOUT, "cut = done[truncated[done] & ~terminated[done]]",
           "cut = done", _CUT),
    Mutant("bootstrap value dropped in the update", _UPDATE, "bootstrap if critic else torch.zeros_like(bootstrap)",
           "torch.zeros_like(bootstrap)", "test_mutants.py::test_the_value_of_a_cut_state_is_a_return"),
    Mutant("bootstrap value dropped in GAE", _RETURNS, "next_value, carry = bootstrap_values,",
           "next_value, carry = torch.zeros_like(bootstrap_values),", "test_returns.py"),
    Mutant("discount left out of GAE's carry", _RETURNS, "delta + gamma * gae_lambda * carry",
           "delta + gae_lambda * carry", "test_returns.py"),
    Mutant("failed scores learnt from", _TRAIN, "everything.select(~everything.faulty)", "everything",
           "test_train.py::test_failed_scores_are_counted_and_never_learnt_from"),
    Mutant("episodes after a late start of learning numbered again", "agents/algorithms.py",
           "return first + (num_updates - 1) * self.episodes_per_update if num_updates else 0",
           "return first * num_updates",
           "test_algorithms.py::test_learning_starts_after_so_many_episodes_and_none_is_left_out"),
    Mutant("learning starts at once whatever learning_starts", "agents/algorithms.py",
           "first = max(self.learning_starts, self.episodes_per_update)", "first = self.episodes_per_update",
           "test_algorithms.py::test_learning_starts_after_so_many_episodes_and_none_is_left_out"),
    Mutant("random stream of the row, not of the episode", _ROLLOUT, "episode_rng(seed, number)",
           "episode_rng(seed, row)", "test_rollout.py::test_result_does_not_depend_on_the_number_of_envs"),
    # Baselines.
    Mutant("RLOO: factor K / (K - 1) left out", _RETURNS, "if leave_one_out:", "if False:", "test_returns.py"),
    Mutant("GRPO: standard deviation of K degrees of freedom", _RETURNS, "(squares / (size - 1).clamp(min=1)).sqrt()",
           "(squares / size).sqrt()", "test_returns.py"),
    Mutant("groups counted over what is left after faults", _UPDATE,
           "torch.from_numpy(rollout.episodes // algorithm.group_size)",
           "torch.arange(len(rollout)) // algorithm.group_size",
           "test_algorithms.py::test_faults_leave_their_group_smaller"),
    Mutant("members of a group get other problems", _ROLLOUT, "group_seed(seed, number // group_size)",
           "group_seed(seed, number)", "test_rollout.py::test_a_group_shares_its_problem_but_not_its_draws"),
    Mutant("credit ignored: every token answers for the whole return", _UPDATE, "credit=algorithm.credit",
           'credit="episode"', "test_update.py::test_a_token_answers_for_what_its_credit_says"),
    # Normalization and aggregation.
    Mutant("whitened per micro-batch", _UPDATE, "advantages, clip_range = batch.advantages[part],",
           "advantages, clip_range = masked_whiten(batch.advantages[part], mask),", _PARTS),
    Mutant("whitened per minibatch", _UPDATE, "    num_tokens = float(batch.mask[rows[own]].sum())",
           "    whitened = masked_whiten(batch.advantages[rows], batch.mask[rows])\n"
           "    whitened = batch.advantages.index_put((torch.from_numpy(rows),), whitened)\n"
           "    batch = Batch(**vars(batch) | {'advantages': whitened})\n"
           "    num_tokens = float(batch.mask[rows[own]].sum())",
           _FORMULA),
    Mutant("not whitened", _UPDATE, "advantages = masked_whiten(advantages, mask)", "pass", _FORMULA),
    Mutant("mean of micro-batch means", _UPDATE, "batch.old_log_probs[part], weights[part]",
           "batch.old_log_probs[part], token_weights(batch.mask[part], algorithm.aggregation) * len(part) / len(rows)",
           _PARTS),
    Mutant("sft: mean of micro-batch means", "agents/sft.py", "loss = -log_probs.sum() / normalizer",
           "loss = -log_probs.sum() / float(rollout.mask[part].sum()) * len(part) / len(rows)",
           "test_sft.py::test_gradients_do_not_depend_on_micro_batches"),
    Mutant("sequence mean without the length", _LOSSES, '"sequence_mean": lengths * len(mask)',
           '"sequence_mean": torch.tensor(len(mask))', "test_losses.py"),
    Mutant("sequence sum divided by tokens", _LOSSES, '"sequence_sum": torch.tensor(len(mask))',
           '"sequence_sum": lengths.sum()', "test_losses.py"),
    # The losses.
    Mutant("advantages not detached", _LOSSES, "advantages.detach()", "advantages", _DETACHED),
    Mutant("old log-probs not detached", _LOSSES, "old_log_probs.detach()", "old_log_probs", _DETACHED),
    Mutant("the critic's target not detached", _LOSSES, "old_values.detach(), returns.detach()",
           "old_values.detach(), returns", _DETACHED),
    Mutant("the critic's old value not detached", _LOSSES, "old_values.detach(), returns", "old_values, returns",
           _DETACHED),
    Mutant("surrogate: max for min", _LOSSES, "torch.minimum(ratio * advantages", "torch.maximum(ratio * advantages",
           "test_losses.py"),
    Mutant("value clipping: min for max", _LOSSES, "torch.maximum(error", "torch.minimum(error", "test_losses.py"),
    Mutant("values never clipped", _UPDATE, "clip_range=algorithm.value_clip_range", "clip_range=None", _FORMULA),
    Mutant("entropy sign", _UPDATE, "- algorithm.entropy_coef * masked_sum", "+ algorithm.entropy_coef * masked_sum",
           _FORMULA),
    Mutant("entropy of forbidden tokens is NaN", _LOSSES, "log_probs.clamp_(min=_LOG_OF_ZERO)).sum",
           "log_probs).sum", "test_losses.py"),
    Mutant("gradient of the entropy without its mean", _LOSSES, ".add_(entropies[part, None])", "", "test_losses.py"),
    # Imitation.
    Mutant("imitation sign", _UPDATE, '= -masked_sum(gains *', '= masked_sum(gains *', _IMITATION),
    Mutant("imitated episodes learnt from as sampled", _UPDATE, "return mask & ~imitated, mask & imitated",
           "return mask, mask & imitated", _IMITATION),
    Mutant("what is worse than expected imitated too", _UPDATE, "(batch.returns[part] - expected).clamp(min=0)",
           "(batch.returns[part] - expected)", _IMITATION),
    Mutant("replay not restored on resume", _TRAIN, "replay.load(load_replay(path))", "pass",
           "test_replay.py::test_resuming_with_imitation_equals_the_straight_run_bit_for_bit"),
    # KL to the reference.
    Mutant("KL sign in the reward", _UPDATE, "rewards - kl_coef * kl", "rewards + kl_coef * kl", _FORMULA),
    Mutant("KL sign in the loss", _UPDATE, "loss + batch.kl_coef *", "loss - batch.kl_coef *", _KL_GRADIENT),
    Mutant("KL in the reward at the coefficient of the start", _UPDATE, "rewards - kl_coef * kl",
           "rewards - algorithm.kl_coef * kl",
           "test_update.py::test_a_token_is_charged_its_k1_at_the_coefficient_as_it_stands"),
    Mutant("KL in the loss at the coefficient of the start", _UPDATE, "loss + batch.kl_coef *",
           "loss + algorithm.kl_coef *", _FORMULA),
    Mutant("KL the wrong way round", _LOSSES, "log_probs - ref_log_probs\n", "ref_log_probs - log_probs\n",
           "test_losses.py"),
    Mutant("k3 of the other direction", _LOSSES, "torch.expm1(-difference) + difference",
           "torch.expm1(difference) - difference", "test_losses.py"),
    Mutant("KL counted in the reward and in the loss", _UPDATE,
           'kl is not None and algorithm.kl_penalty == "k1_reward"', "kl is not None", _KL_GRADIENT),
    Mutant("reference's log-probs not detached", _UPDATE, "ref_log_probs.detach()", "ref_log_probs",
           "test_mutants.py::test_no_gradient_flows_through_the_numbers_an_update_learns_from"),
    Mutant("adaptive KL sign", _LOSSES, "max(kl / target - 1,", "max(1 - kl / target,", "test_losses.py"),
    Mutant("adaptive KL fed nats a token", _CHECKS, "masked_sum(batch.kl, batch.mask) / len(rollout)",
           "masked_mean(batch.kl, batch.mask)", "test_mutants.py::test_logged_kl_is_nats_an_episode"),
    Mutant("adaptive KL counts excluded episodes", _TRAIN, "len(rollout), algorithm)", "len(everything), algorithm)",
           "test_mutants.py::test_the_adaptive_kl_coefficient_counts_the_episodes_that_are_learnt_from"),
    Mutant("kl_coef not restored on resume", _TRAIN, 'state.get("kl_coef", algorithm.kl_coef)', "algorithm.kl_coef",
           "test_algorithms.py::test_an_adaptive_kl_coefficient_follows_its_formula_and_survives_resume"),
    # The optimizer steps.
    Mutant("early stop: smaller for larger", _UPDATE, "> 1.5 * algorithm.target_kl", "< 1.5 * algorithm.target_kl",
           "test_algorithms.py::test_an_update_stops_before_the_step_that_strays_too_far"),
    Mutant("one shuffle for all epochs", _UPDATE, "seed, update, epoch])", "seed, update])", _SHUFFLE),
    Mutant("one shuffle for all updates", _UPDATE, "seed, update, epoch])", "seed, epoch])", _SHUFFLE),
    Mutant("gradients pile up from step to step", _UPDATE, "parameter.grad = None", "pass",
           "test_mutants.py::test_each_step_starts_without_the_gradient_of_the_last"),
    Mutant("gradient not clipped", _UPDATE, "clip_grad_norm_(parameters, algorithm.max_grad_norm,",
           "clip_grad_norm_(parameters, 1e9,",
           "test_train.py::test_the_first_step_is_adams_on_the_clipped_gradient"),
    Mutant("constant learning rate", _TRAIN, " * (1 - update / num_updates)", "",
           "test_train.py::test_a_finished_run_has_its_records_and_checks"),
    Mutant("learning rate logged and not set", _TRAIN, 'group["lr"] = learning_rate', "pass",
           "test_mutants.py::test_the_optimizer_has_the_learning_rate_that_is_logged"),
    Mutant("weights not restored on resume", _TRAIN, 'policy.load(path / "policy")', "pass", _RESUME),
    Mutant("Adam's moments not restored on resume", "agents/checkpoint.py",
           'optimizer.load_state_dict({"state": restored,', 'optimizer.load_state_dict({"state": {},', _RESUME),
    # The self-checks.
    Mutant("any first ratio is accepted", "agents/selfchecks.py", "{None: 1e-4,", "{None: 1e9,",
           "test_mutants.py::test_a_ratio_that_is_not_one_before_the_first_step_is_warned_of"),
    Mutant("the start is compared with itself", _TRAIN, "start_checks(policy, reference,",
           "start_checks(policy, policy,",
           "test_mutants.py::test_the_checks_of_the_start_measure_the_way_to_the_reference"),
    # The critic's bias.
    Mutant("critic's bias: fitted the wrong way", _UPDATE, "policy.value_bias.add_(shift)",
           "policy.value_bias.sub_(shift)", "test_update.py::test_a_fitted_bias_puts_the_values_where_the_targets_are"),
    Mutant("critic's bias: values are clipped around where they were", _UPDATE,
           "old_values=batch.old_values + shift", "old_values=batch.old_values",
           "test_update.py::test_a_fitted_bias_puts_the_values_where_the_targets_are"),
    Mutant("critic's bias: never fitted", _UPDATE, "if algorithm.fit_value_bias:", "if False:",
           "test_update.py::test_the_bias_is_fitted_before_the_steps_where_that_is_asked"),
    # The page: hostile text.
    Mutant("report: a script element can be ended by its data", _PAGE, 'for c in "<>&', 'for c in "&',
           "test_report.py::test_json_stands_safely_in_a_script_element"),
    Mutant("report: the policy lets the file's own origin in", _PAGE, "\"default-src 'none';", "\"default-src 'self';",
           "test_report.py::test_one_style_and_one_script_are_let_through_by_their_hashes"),
    Mutant("report: markup may be made of text", _PAGE,
           " require-trusted-types-for 'script'; trusted-types 'none'", "",
           "test_report.py::test_one_style_and_one_script_are_let_through_by_their_hashes"),
    Mutant("report: what cannot be seen stays so", _PAGE, "shown = visible(data)", "shown = data",
           "test_report.py::test_everything_unseen_is_spelt_out_and_nothing_is_endless"),
    Mutant("report: names of things keep what cannot be seen", "agents/report/records.py",
           "{visible(str(key)): visible", "{str(key): visible",
           "test_report.py::test_everything_unseen_is_spelt_out_and_nothing_is_endless"),
    # The page: numbers.
    Mutant("report: interval of the biased variance", _CURVES, "for value in values) / (n - 1)",
           "for value in values) / n", "test_report.py::test_means_and_intervals_of_seeds"),
    Mutant("report: a mean of the seeds that have a number", _CURVES, "if len(column) == len(runs) else",
           "if column else", "test_report.py::test_a_mean_is_only_where_every_seed_has_a_number"),
    Mutant("report: the judge's error is the reward's", _EPISODES, 'else f"{name}_stderr"\n', 'else "stderr"\n',
           "test_report.py::test_an_evaluation_is_laid_out_before_and_after"),
    Mutant("report: the judge's gain is the reward's", _EPISODES, "as_number(gains.get(name))",
           'as_number(gains.get("mean_return"))', "test_report.py::test_an_evaluation_is_laid_out_before_and_after"),
    Mutant("report: one seed that passes is enough", _REPORT_CHECKS, "all(map(check.passes", "any(map(check.passes",
           "test_report.py::test_a_check_that_fails_in_one_of_the_seeds_fails"),
    Mutant("report: exclusions of the best seed", _REPORT_CHECKS, "max(known) <= MAX", "min(known) <= MAX",
           "test_report.py::test_a_check_that_fails_in_one_of_the_seeds_fails"),
    Mutant("report: two commits are not yet mixed", "agents/report/benchmark_data.py",
           'if len(summary["sources"]) > 1', 'if len(summary["sources"]) > 2',
           "test_report_benchmark.py::test_results_of_different_sources_are_marked"),
    Mutant("report: a run without metrics is a page", "agents/report/runs.py", "if not metrics:", "if metrics is None:",
           "test_report.py::test_bad_input_is_one_sentence"),
    Mutant("report: an outlier pales all other tokens", _JS + "tokens.js", "Math.max(-quantile(0.01), quantile(0.99))",
           "Math.max(-values[0], values.at(-1))",
           "test_report_browser.py::test_an_outlier_does_not_pale_the_other_tokens"),
    Mutant("report: numbers sorted as text", _JS + "table.js", "? null : Number(number)", "? null : number",
           "test_report_browser.py::test_numbers_are_sorted_as_numbers"),
    # The benchmark.
    Mutant("benchmark: jobs with other settings are taken for done", _RUNNER, "job.key not in rows or job in stale or",
           "job.key not in rows or", "test_benchmark.py::test_other_settings_make_a_result_stale"),
    Mutant("benchmark: the settings are no part of a job", _JOBS, "fingerprint([self.agent.settings, ", "fingerprint([",
           "test_benchmark.py::test_other_settings_make_a_result_stale"),
    Mutant("benchmark: a job goes on until both budgets are spent", "agents/benchmark/agents.py",
           "< self.num_episodes and now", "< self.num_episodes or now",
           "test_benchmark.py::test_the_budget_ends_ours_and_theirs_alike"),
    Mutant("benchmark: score without its random floor", _JOBS, "(mean_return - self.random) / (self.optimal",
           "mean_return / (self.optimal",
           "test_benchmark.py::test_seeds_are_paired_and_scores_are_between_random_and_optimal"),
    Mutant("benchmark: a mean for the interquartile mean", _STATISTICS, "stats.trim_mean(pooled, 0.25, axis=-1)",
           "pooled.mean(-1)", "test_report_benchmark.py::test_the_page_of_a_benchmark_holds_what_its_statistics_say"),
    Mutant("benchmark: runs that did not get there count as arrived", _STATISTICS,
           "uncensored=times[there], right=times[~there]", "uncensored=times",
           "test_statistics.py::test_a_median_with_runs_that_did_not_get_there"),
    Mutant("benchmark: the interval takes the end of a run for its arrival", _TABLES,
           "latest = [value if there else math.inf", "latest = [value if there else value",
           "test_report_benchmark.py::test_runs_that_did_not_get_there_count_as_later"),
    Mutant("benchmark: the bootstrap draws from one environment", _STATISTICS,
           "np.asarray(groups[env], np.float64)[rows]", "np.asarray(groups[0], np.float64)[rows % len(groups[0])]",
           "test_statistics.py::test_the_bootstrap_draws_runs_within_each_environment"),
    Mutant("benchmark: pairs drawn apart", _STATISTICS, "if number and not paired:", "if number:",
           "test_statistics.py::test_the_bootstrap_draws_pairs_together"),
)
# fmt: on

IMPOSSIBLE = (
    Impossible(
        "position_ids dropped in the update",
        _LM,
        "slots = np.minimum(first[:, None] + np.arange(width)",
        "every sequence is moved to start at slot 0, where the positions are those that a model assumes without any",
    ),
    Impossible(
        "stale cache after an optimizer step",
        _ROLLOUT,
        "observations = start(np.ones(envs.num_envs, bool), None)",
        "every call of `collect` starts all rows anew, and a new row is fed from position 0",
    ),
    Impossible(
        "gradient through a rollout's advantages",
        _ROLLOUT,
        "values: NDArray[np.float32]  # (B, T) before each action",
        "a rollout holds NumPy arrays: nothing to differentiate; the losses detach all the same, and are mutated above",
    ),
)
