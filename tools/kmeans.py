"""Takes the cluster centers out of a k-means model of scikit-learn, for `sandhi units`.

    python3 -m venv venv && venv/bin/pip install joblib scikit-learn numpy
    venv/bin/python tools/kmeans.py IN OUT.npy

IN is what joblib or pickle wrote, e.g. mhubert_base_vp_en_es_fr_it3_L11_km1000.bin. Loading it runs whatever code it
holds: do this for files that you trust only. OUT.npy holds f32 [n_clusters, width].
"""

import argparse

import joblib
import numpy as np

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
parser.add_argument("model")
parser.add_argument("out")
arguments = parser.parse_args()

model = joblib.load(arguments.model)
centers = np.ascontiguousarray(getattr(model, "cluster_centers_", model), dtype=np.float32)
if centers.ndim != 2 or not np.isfinite(centers).all():
    parser.error(f"{arguments.model}: expected finite centers [n_clusters, width], found shape {centers.shape}")
with open(arguments.out, "wb") as file:
    np.save(file, centers)
print(f"{centers.shape[0]} centers, {centers.shape[1]} wide")
