"""RLlib's PPO with its action-masking module, on our native batch. `python examples/rllib_masked_ppo.py`."""

import argparse

import gymnasium as gym
from counting import count, report

import textenvs  # noqa: F401 - registers the ids

try:
    import ray
    from ray.rllib.algorithms.ppo import PPOConfig
    from ray.rllib.callbacks.callbacks import RLlibCallback
    from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
    from ray.rllib.core.rl_module.rl_module import RLModuleSpec
    from ray.rllib.examples.rl_modules.classes.action_masking_rlm import ActionMaskingTorchRLModule
    from ray.tune.registry import register_env
except ImportError:
    raise SystemExit("this example needs RLlib; pip install -r examples/requirements-rllib.txt") from None

returns, lengths = [], []


class Episodes(RLlibCallback):
    """Notes every finished episode; RLlib may hold it in several chunks."""

    def on_episode_end(self, *, episode, prev_episode_chunks=(), **kwargs):
        returns.append(sum(chunk.get_return() for chunk in [*prev_episode_chunks, episode]))
        lengths.append(episode.t)  # not the chunks' lengths: PPO's learner has appended a step to each


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="one update only")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    # Without counting, "textenvs:textenvs/Copy-v0" is all that environment() needs. `settings` holds num_envs.
    register_env("copies", lambda settings: count(gym.make_vec("textenvs/Copy-v0", **settings)))
    settings = {"length": 3, "alphabet": "abcd", "dense": True, "observation": "onehot", "mask_keys": "rllib"}
    config = PPOConfig().environment("copies", env_config=settings).callbacks(Episodes).debugging(seed=arguments.seed)
    config.env_runners(num_env_runners=0, num_envs_per_env_runner=32, gym_env_vectorize_mode="vector_entry_point")
    model = DefaultModelConfig(fcnet_hiddens=[64, 64], fcnet_activation="relu", vf_share_layers=False)
    config.rl_module(rl_module_spec=RLModuleSpec(module_class=ActionMaskingTorchRLModule, model_config=model))
    config.training(lr=[[0, 4e-3], [90_000, 1e-4]], gamma=1.0, lambda_=0.95, entropy_coeff=0.005)
    config.training(train_batch_size_per_learner=2048, minibatch_size=256, num_epochs=8)
    ray.init(num_cpus=1, include_dashboard=False)
    algo = config.build_algo()
    for _ in range(1 if arguments.smoke else 48):
        algo.train()
    algo.stop()
    ray.shutdown()
    report("ray", returns, lengths)


if __name__ == "__main__":
    main()
