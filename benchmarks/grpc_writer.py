"""One clinic of `hop_single`: a process that puts one bundle after the other through gRPC.

Arguments: folder of a client's credentials, name of the writer, seconds, rows a bundle.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import protos.fenhe.care.v1.care_pb2 as care
import protos.fenhe.empi.v1.empi_pb2 as empi
from benchmarks.bundles import observation_bundles, resident_bundle
from benchmarks.crew import wait_for_start, work_for
from node.cli.client import connected
from node.records.model import Bundle
from node.security.credentials import load_credentials
from protos.fenhe.care.v1 import care_pb2_grpc

_RESIDENTS = 25
_SEXES = {"male": empi.SEX_MALE, "female": empi.SEX_FEMALE}


def main(credentials: str, name: str, seconds: str, rows: str) -> None:
    """Register residents, wait for the word, write until the time is up."""
    with connected(load_credentials(Path(credentials))) as channel:
        stub = care_pb2_grpc.RecordServiceStub(channel)
        known = stub.PutBundle(residents_request(resident_bundle(name, _RESIDENTS))).resident_ids
        made = observation_bundles(name, list(known), int(rows))
        wait_for_start()
        work_for(
            float(seconds),
            lambda: stub.PutBundle(observations_request(next(made)), timeout=60),
            int(rows),
        )


def residents_request(bundle: Bundle) -> care.PutBundleRequest:
    """The bundle of residents as it goes on the wire."""
    return care.PutBundleRequest(
        request_id=bundle.request_id,
        residents=[
            empi.Resident(name=each.name, sex=_SEXES[each.sex], birth_date=each.birth_date)
            for each in bundle.residents
        ],
    )


def observations_request(bundle: Bundle) -> care.PutBundleRequest:
    """The bundle of observations as it goes on the wire."""
    return care.PutBundleRequest(
        request_id=bundle.request_id,
        records=[
            care.Record(resident_id=each.resident_id, observation=_observation(each.values))
            for each in bundle.records
        ],
    )


def _observation(values: Mapping[str, Any]) -> care.Observation:
    return care.Observation(**values)


if __name__ == "__main__":
    main(*sys.argv[1:])
