#!/bin/sh
# Stands in for echelon-rank: reports as a rank does, then behaves as FAKE says.
rank=${OMPI_COMM_WORLD_RANK:-0}
for argument in "$@"; do
  case $argument in
    --status_folder=*) status=${argument#*=} ;;
    --out=*) out=${argument#*=} ;;
    --) break ;;
  esac
done
report() {
  printf '{"rank":%d,"pid":%d,"host":"%s","exit":%s,"error":"%s","ended":%s}' \
    "$rank" $$ "$(uname -n)" "$1" "$2" "$(date +%s.%N)" > "$status/new.$rank"
  mv "$status/new.$rank" "$status/rank-0000$rank.status"
}
log() { echo "$1" >> "$out/log/rank-0000$rank.log"; }
wait_long() { exec sleep 60; }
# Takes signals; ends some day, whatever the test did.
wait_awake() {
  turn=0
  while [ $turn -lt 1200 ]; do
    sleep 0.05
    turn=$((turn + 1))
  done
}
report null ""
case $FAKE in
  fine) echo "rank $rank of ${OMPI_COMM_WORLD_SIZE:-1}, $OMP_NUM_THREADS threads" >&2 ;;
  arguments) for argument in "$@"; do printf '%s\0' "$argument"; done > "$FAKE_FILE" ;;
  killed)
    log "loading tokens"
    if [ "$rank" = 1 ]; then log "about to die"; kill -9 $$; fi
    wait_long ;;
  alone) kill -SEGV $$ ;;
  error)
    [ "$rank" = 1 ] || wait_long
    report 4 "input: x.safetensors: truncated"
    echo "echelon: input: x.safetensors: truncated" >&2
    exit 4 ;;
  silent)
    if [ "$rank" = 1 ]; then report 7 "numerics: step 3: loss is not finite"; fi
    wait_long ;;
  stops)
    trap 'report 75 "stopped: step 5: stopped on request after a durable checkpoint"; exit 75' USR1
    : > "$FAKE_FILE.$rank"
    wait_awake ;;
  deaf)
    trap '' USR1
    echo $$ > "$FAKE_FILE.$rank"
    wait_awake ;;
  dies_once)
    case " $* " in *" --resume=auto "*) [ -e "$out/checkpoints/step-00000005" ] && exit 0; exit 3 ;; esac
    [ "$rank" = 1 ] || wait_long
    mkdir -p "$out/checkpoints/step-00000005"
    kill -9 $$ ;;
  freezes)
    [ "$rank" = 1 ] || wait_long
    kill -STOP $$ ;;
  dies_always) kill -9 $$ ;;
  dies_behind_step_6)
    [ "$rank" = 1 ] || wait_long
    mkdir -p "$out/checkpoints/step-00000003" "$out/checkpoints/step-00000006"
    kill -9 $$ ;;
esac
