# OpenBao of docker-compose.yml: a real server with lasting storage, not dev mode, which forgets everything at a restart.
api_addr     = "http://openbao:8200"
cluster_addr = "http://127.0.0.1:8201"
ui           = false

storage "raft" {
  path    = "/openbao/file"
  node_id = "only"

  # A lone node is its own leader after a tenth of a second instead of five to ten.
  performance_multiplier = 1
}

# Without TLS, on a network that only the demo's containers are on. Never do this elsewhere.
listener "tcp" {
  address         = "0.0.0.0:8200"
  cluster_address = "127.0.0.1:8201"
  tls_disable     = true
}

# `docker compose logs openbao` shows it. OpenBao takes audit devices from this file only.
audit "file" "stdout" {
  options {
    file_path = "stdout"
  }
}
