"""Settings with which each baseline is fitted in seconds; one without any is fast by itself."""

FAST: dict[str, dict[str, object]] = {}
FAST["gpt_paper"] = {"n_layer": 1, "n_head": 2, "n_embd": 16, "n_ctx": 160, "epochs": 1}
FAST["synehrgy"] = FAST["gpt_paper"]
FAST["rtsgan"] = {"n_steps": 8, "hidden": 12, "noise": 12, "updates": 60, "gan_updates": 20}
FAST["halo"] = {"width": 16, "n_layers": 1, "n_heads": 2, "units": 1, "n_steps": 8, "epochs": 4}
FAST["promptehr"] = {"width": 16, "n_layer": 1, "n_head": 2, "epochs": 3}
FAST["timehr"] = {"n_steps": 8, "batch_size": 8, "mask_updates": 4, "value_updates": 4}
