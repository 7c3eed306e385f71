#!/bin/sh
# curl: examples/clients/with_curl.sh http://127.0.0.1:8080/v1 tiny [KEY]
set -eu
ask() {
    curl -sS --fail-with-body "$1/chat/completions" -H "authorization: Bearer ${4:-none}" \
        -H 'content-type: application/json' -D /dev/stderr \
        -d '{"model": "'"$2"'", "messages": [{"role": "user", "content": "What is (3+4)*5-9?"}]'"$3"'}'
    echo
}
ask "$1" "$2" '' "${3:-}"
ask "$1" "$2:direct" ', "stream": true' "${3:-}"
