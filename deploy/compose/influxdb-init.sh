#!/bin/bash
# 只在 InfluxDB 第一次启动时运行一次：采集中心的令牌(读写)与 Grafana 的身份(只读)
# Run once, at the first start of InfluxDB: the collector's token (reads and writes) and Grafana's identity (reads)
set -eu
umask 077
bucket=$(influx bucket list --org "$DOCKER_INFLUXDB_INIT_ORG" --name "$DOCKER_INFLUXDB_INIT_BUCKET" --hide-headers | cut -f 1)
influx auth create --org "$DOCKER_INFLUXDB_INIT_ORG" --description collector --read-bucket "$bucket" --write-bucket "$bucket" --json |
  sed -n 's/^.*"token": "\([^"]*\)".*$/\1/p' > /made/influx-token
test -s /made/influx-token
influx v1 auth create --org "$DOCKER_INFLUXDB_INIT_ORG" --username grafana --read-bucket "$bucket" \
  --password "$(cat /run/secrets/grafana-reader)" > /dev/null
