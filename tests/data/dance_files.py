"""Small files in the layouts of AIST++ and of the published segments."""

import pickle
import wave

import numpy as np
import torch

from mmdiffusion.data.aist_names import parse_name

TRAIN = ("gHO_sBM_cAll_d19_mHO4_ch01", "gHO_sBM_cAll_d19_mHO4_ch02", "gBR_sBM_cAll_d04_mBR5_ch01")
VAL = ("gHO_sBM_cAll_d20_mHO5_ch01",)
TEST = ("gHO_sBM_cAll_d20_mHO5_ch02",)
IGNORED = ("gBR_sBM_cAll_d04_mBR5_ch01",)


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def write_dance(root, name, num_frames=None, seed=0):
    """Both pickles of a sequence, with the traps of the real ones: joints that are not finite where nobody looks."""
    frames = num_frames or parse_name(name).num_frames
    poses, root_path = numbers(frames, 72, seed=seed), numbers(frames, 3, seed=seed + 1) * 100
    stored = {"smpl_loss": 1.5, "smpl_poses": poses.astype("f4"), "smpl_trans": root_path.astype("f4")}
    write_pickle(root / "motions" / f"{name}.pkl", stored | {"smpl_scaling": np.array([93.75], "f4")})
    joints = numbers(frames, 17, 3, seed=seed + 2) * 50 + 100
    broken = joints.copy()
    broken[:5, 13:15] = np.nan
    write_pickle(root / "keypoints3d" / f"{name}.pkl", {"keypoints3d": broken, "keypoints3d_optim": joints})


def write_pickle(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(value, protocol=4))


def write_lists(root, train=TRAIN, val=VAL, test=TEST, ignored=IGNORED):
    (root / "splits").mkdir(parents=True, exist_ok=True)
    for split, names in (("train", train), ("val", val), ("test", test)):
        (root / "splits" / f"crossmodal_{split}.txt").write_text("\n".join(names))  # no newline at the end
    (root / "ignore_list.txt").write_text("\n".join(ignored) + "\n\n\n")


def write_archive(root, rate=4000, channels=2):
    """An archive of three splits with its music beside it."""
    write_lists(root)
    for seed, name in enumerate((*TRAIN, *VAL, *TEST)):
        write_dance(root, name, seed=10 * seed)
        write_tone(root / "music" / f"{parse_name(name).music}.wav", 8.0, rate, channels)
    return root


def tone(seconds, rate, hertz=110.0):
    return 0.5 * torch.sin(2 * torch.pi * hertz * torch.arange(round(seconds * rate)).double() / rate)


def write_tone(path, seconds, rate, channels=1, hertz=110.0):
    """A sine wave; a second channel is silent, so the mean of both has half the height."""
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = (tone(seconds, rate, hertz) * 32767).round().numpy().astype("<i2")
    columns = np.stack([samples, *[np.zeros_like(samples)] * (channels - 1)], axis=1)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(columns.tobytes())


def write_segments(root, stems, seconds=2, motion_shape=(120, 219), rate=4000, video=True):
    """Segments by their path in the folders, `train/gBR_..._seg1`."""
    for seed, stem in enumerate(stems):
        write_tone(root / f"audio_s{seconds}" / f"{stem}.wav", seconds, rate)
        write_array(root / f"motion_s{seconds}" / f"{stem}.npy", numbers(*motion_shape, seed=seed))
        if video:
            write_array(root / f"video_s{seconds}" / f"{stem}.npy", numbers(1, 2048, seed=seed))


def write_array(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, array)
