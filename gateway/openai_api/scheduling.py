"""Request fields with which a client could schedule, place or transfer requests at a backend. No I/O.

They belong to the operator. A client with `priority` would pass everybody else's queue, and one with
`data_parallel_rank` could pile its requests onto one GPU.
"""

from __future__ import annotations

from msgspec.structs import replace

from gateway.errors import InvalidRequest
from gateway.openai_api.requests import Request

SCHEDULING_FIELDS = frozenset(
    (
        # vLLM: order, placement, transfer of KV and encoder caches, arguments of plug-ins, the request's name
        *("priority", "data_parallel_rank", "kv_transfer_params", "ec_transfer_params", "vllm_xargs"),
        "request_id",
        # SGLang: the request's name, placement, prefill servers, adapter, code that runs at the server
        *("rid", "routed_dp_rank", "disagg_prefill_dp_rank", "session_params", "lora_path"),
        *("bootstrap_host", "bootstrap_port", "bootstrap_room", "custom_logit_processor", "custom_params"),
        # TensorRT-LLM: transfer of caches, an adapter by its path
        *("disaggregated_params", "lora_request", "scheduling_params"),
        # NVIDIA Dynamo: hints for its router
        "nvext",
        # LiteLLM puts what is in it in the place of the request's own fields
        "extra_body",
    )
)


def without_scheduling(request: Request, *, refuse: bool = False) -> Request:
    """The request without the fields that belong to the operator.

    refuse: raise an error that names the first of them, so that the client notices.

    Raises: InvalidRequest.
    """
    if SCHEDULING_FIELDS.isdisjoint(request.fields):
        return request
    given = [name for name in request.fields if name in SCHEDULING_FIELDS]
    if refuse:
        raise InvalidRequest(f"Only the operator may set {given[0]!r}", param=given[0])
    kept = {name: value for name, value in request.fields.items() if name not in SCHEDULING_FIELDS}
    return replace(request, fields=kept)
