"""What each suite has to reach: on a whole run, and the floors of a quick one."""

from __future__ import annotations

from skillc.figures import Target

TARGETS: dict[str, dict[str, Target]] = {
    "commands": {
        "adapter_exact": (">=", 0.98),
        "exact_minus_text": (">=", -0.005),
        "none_exact": ("<=", 0.02),
        "wrong_exact": ("<=", 0.02),
        "mean_exact": ("<=", 0.05),
        "outside_leak": ("<=", 0.05),
    },
    "handwritten": {
        "adapter_command": (">=", 0.5),
        "command_minus_text": (">=", 0.0),
        "adapter_recall": (">=", 0.95),
        "wrong_command": ("<=", 0.02),
        "mean_command": ("<=", 0.05),
        "outside_leak": ("<=", 0.05),
    },
    "real": {"completion_recovery": (">=", 0.8), "cloze_recovery": (">=", 0.6)},
    "needle": {"wrong_exact": ("<=", 0.02)},
    "robust": {
        "adapter_paraphrase_drop": ("<=", 0.03),
        "adapter_noise_drop": ("<=", 0.03),
        "adapter_reorder_drop": ("<=", 0.03),
        "adapter_plaintext_drop": ("<=", 0.03),
    },
    "sets": {"sets_2_share": (">=", 0.98), "sets_4_share": (">=", 0.92)},
    "unrelated": {
        "flips": ("<", 0.01),
        "perplexity_change": ("<", 0.005),
        "cosine_mean": ("<=", 0.9),
    },
    "sweep": {
        "rank_16_share": (">=", 0.95),
        "rank_32_share": (">=", 0.99),
        "rank_64_share": (">=", 1.0),
        "length_drop": ("<=", 0.05),
        "tail_drop": ("<=", 0.01),
    },
}

FLOORS: dict[str, dict[str, Target]] = {
    "commands": {
        "adapter_exact": (">=", 0.15),
        "none_exact": ("<=", 0.05),
        "wrong_exact": ("<=", 0.05),
        "mean_exact": ("<=", 0.05),
    },
    "handwritten": {"adapter_recall": (">=", 0.6), "wrong_command": ("<=", 0.05)},
    "real": {"completion_recovery": (">=", 0.3)},
    "needle": {"adapter_exact": (">=", 0.2), "wrong_exact": ("<=", 0.05)},
    "robust": {"adapter_plain": (">=", 0.4)},
    "sets": {"stacked_1": (">=", 0.4), "stacked_2": (">=", 0.3)},
    "unrelated": {"flips": ("<", 0.05), "cosine_mean": ("<=", 0.9)},
    "sweep": {"rank_full": (">=", 0.4), "rank_32_share": (">=", 0.9)},
}
