-- What version 1 wrote. Never changed: every later version must be able to open it.
BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0001');
CREATE TABLE api_keys (
	id INTEGER NOT NULL, 
	name TEXT NOT NULL, 
	public_id TEXT NOT NULL, 
	secret_sha256 TEXT NOT NULL, 
	created_at_s BIGINT NOT NULL, 
	revoked_at_s BIGINT, 
	balance BIGINT NOT NULL, 
	CONSTRAINT pk_api_keys PRIMARY KEY (id), 
	CONSTRAINT uq_api_keys_public_id UNIQUE (public_id), 
	CONSTRAINT ck_api_keys_balance_is_never_negative CHECK (balance >= 0)
);
INSERT INTO "api_keys" VALUES(1,'web','00112233aabbccdd','7307a6b56c3b0aae0a0998355a4f2ee0f355638dc15d232289a0df3abc3425dc',1800000000,NULL,8);
INSERT INTO "api_keys" VALUES(2,'old','dfc71666c46597bc','7bcd3b411a593af35de6ca4cfa7d36f8e62ce5e3599c9019fb9c3697c65902b5',1800000000,1800000000,0);
CREATE TABLE credit_entries (
	id INTEGER NOT NULL, 
	key_id INTEGER NOT NULL, 
	request_id TEXT NOT NULL, 
	kind TEXT NOT NULL, 
	amount BIGINT NOT NULL, 
	at_s BIGINT NOT NULL, 
	CONSTRAINT pk_credit_entries PRIMARY KEY (id), 
	CONSTRAINT fk_credit_entries_key_id FOREIGN KEY(key_id) REFERENCES api_keys (id), 
	CONSTRAINT uq_credit_entries_request_id_kind UNIQUE (request_id, kind), 
	CONSTRAINT ck_credit_entries_amount_fits_kind CHECK ((kind = 'grant' AND amount > 0) OR (kind = 'hold' AND amount < 0) OR (kind = 'capture' AND amount = 0) OR (kind = 'release' AND amount > 0))
);
INSERT INTO "credit_entries" VALUES(1,1,'grant-00000000-0000-4000-8000-000000000000','grant',10,1800000000);
INSERT INTO "credit_entries" VALUES(2,1,'r1','hold',-1,1800000000);
INSERT INTO "credit_entries" VALUES(3,1,'r1','capture',0,1800000000);
INSERT INTO "credit_entries" VALUES(4,1,'r2','hold',-1,1800000000);
INSERT INTO "credit_entries" VALUES(5,1,'r2','release',1,1800000000);
INSERT INTO "credit_entries" VALUES(6,1,'r3','hold',-1,1800000000);
CREATE TABLE open_holds (
	request_id TEXT NOT NULL, 
	key_id INTEGER NOT NULL, 
	holder_id TEXT NOT NULL, 
	held_at_s BIGINT NOT NULL, 
	CONSTRAINT pk_open_holds PRIMARY KEY (request_id), 
	CONSTRAINT fk_open_holds_key_id FOREIGN KEY(key_id) REFERENCES api_keys (id)
);
INSERT INTO "open_holds" VALUES('r3',1,'00000000000000000000000000000000',1800000000);
CREATE UNIQUE INDEX uq_api_keys_active_name ON api_keys (name) WHERE revoked_at_s IS NULL;
CREATE INDEX ix_credit_entries_key_id ON credit_entries (key_id);
CREATE INDEX ix_open_holds_holder_id ON open_holds (holder_id);
COMMIT;
