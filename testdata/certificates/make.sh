#!/bin/sh
# Makes the certificates of this folder with OpenSSL. Keys are thrown away: nothing here can sign again.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

keep() { openssl x509 -in "$work/$1.pem" -out "$1.pem"; }
key() { openssl genpkey -algorithm "$2" -pkeyopt "$3" -out "$work/$1.key" 2>/dev/null; }

# The manual's self-signed device certificate of 30 days.
key self-signed-30-days RSA rsa_keygen_bits:2048
printf '[req]\ndistinguished_name=dn\n[dn]\n' > "$work/empty.cnf"
openssl req -new -x509 -config "$work/empty.cnf" -key "$work/self-signed-30-days.key" -subj '/CN=my-x509-device' -days 30 \
  -addext keyUsage=critical,digitalSignature -addext extendedKeyUsage=clientAuth -out "$work/self-signed-30-days.pem"
keep self-signed-30-days

# Roots: RSA 2048, P-384, P-521 and RSA 4096 with PSS.
root() {
  openssl req -new -x509 -config "$work/empty.cnf" -key "$work/$1.key" -subj "/C=GB/O=Muster/CN=$1" -days 36500 \
    -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign -out "$work/$1.pem" $2
  keep "$1"
}
key root-rsa-2048 RSA rsa_keygen_bits:2048
root root-rsa-2048 -sha256
key root-p384 EC ec_paramgen_curve:P-384
root root-p384 -sha384
key root-p521 EC ec_paramgen_curve:P-521
root root-p521 -sha512
key root-rsa-4096-pss RSA rsa_keygen_bits:4096
root root-rsa-4096-pss '-sha256 -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:32'
key root-rsa-1024 RSA rsa_keygen_bits:1024
root root-rsa-1024 -sha256

# A leaf of each root.
leaf() {
  key "$1" EC ec_paramgen_curve:P-256
  openssl req -new -config "$work/empty.cnf" -key "$work/$1.key" -subj "/CN=$1" -out "$work/$1.csr"
  openssl x509 -req -in "$work/$1.csr" -CA "$work/$2.pem" -CAkey "$work/$2.key" -set_serial "$3" -days 36500 \
    -extfile "$work/leaf.ext" -out "$work/$1.pem" $4 2>/dev/null
  keep "$1"
}
printf 'basicConstraints=CA:FALSE\nextendedKeyUsage=clientAuth\n' > "$work/leaf.ext"
leaf leaf-rsa-2048 root-rsa-2048 0x00ff -sha256
leaf leaf-p384 root-p384 1 -sha384
leaf leaf-p521 root-p521 2 -sha512
leaf leaf-rsa-4096-pss root-rsa-4096-pss 3 '-sha256 -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:32'
leaf leaf-rsa-1024 root-rsa-1024 4 -sha256
leaf leaf-sha1 root-rsa-2048 5 -sha1

# Version 1: no extensions at all. And one that expired in 2021.
printf '' > "$work/leaf.ext"
key leaf-v1 EC ec_paramgen_curve:P-256
openssl req -new -config "$work/empty.cnf" -key "$work/leaf-v1.key" -subj /CN=leaf-v1 -out "$work/leaf-v1.csr"
openssl x509 -req -in "$work/leaf-v1.csr" -CA "$work/root-rsa-2048.pem" -CAkey "$work/root-rsa-2048.key" -set_serial -7 \
  -days 36500 -out "$work/leaf-v1.pem" 2>/dev/null
keep leaf-v1
mkdir "$work/ca" && : > "$work/ca/index" && echo 06 > "$work/ca/serial"
cat > "$work/ca.cnf" <<CNF
[ca]
default_ca=any
[any]
database=$work/ca/index
serial=$work/ca/serial
new_certs_dir=$work/ca
default_md=sha256
policy=policy
unique_subject=no
[policy]
commonName=supplied
CNF
openssl ca -batch -config "$work/ca.cnf" -cert "$work/root-rsa-2048.pem" -keyfile "$work/root-rsa-2048.key" \
  -in "$work/leaf-v1.csr" -subj /CN=leaf-expired -startdate 20200101000000Z -enddate 20210101000000Z \
  -notext -out "$work/leaf-expired.pem" 2>/dev/null
keep leaf-expired
