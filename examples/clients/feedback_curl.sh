#!/bin/sh
# Feedback with curl: examples/clients/feedback_curl.sh http://127.0.0.1:8080/v1 tiny [KEY]
set -eu
ask() {
    curl -sS --fail-with-body "$1" -H "authorization: Bearer $KEY" -H 'content-type: application/json' -d "$2"
    echo
}
KEY=${3:-none}
QUESTION='"messages": [{"role": "user", "content": "What is (3+4)*5-9?"}]'

decision_id=$(curl -sS --fail-with-body -o /dev/null -w '%header{x-thinkmeter-decision-id}' "$1/chat/completions" \
    -H "authorization: Bearer $KEY" -H 'content-type: application/json' -d '{"model": "'"$2"'", '"$QUESTION"'}')
ask "$1/feedback" '{"decision_id": "'"$decision_id"'", "correct": true, "source": "script"}'
